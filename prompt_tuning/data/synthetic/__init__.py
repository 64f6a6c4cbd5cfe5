"""A little world in plain English, which writes text to pre-train on and, in worlds of their own, tasks to tune on.

Everything is synthetic and a function of its seed. `world` draws people, places and things; each topic (`stories`,
`beliefs`, `relations`, `causes`, `senses`, `pronouns`, `reviews`) writes paragraphs about them and examples of one or
two tasks; `corpus` mixes the paragraphs with prose, `benchmark` collects the examples.
"""
