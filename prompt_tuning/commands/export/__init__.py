"""Write a tuned prompt, what a method added, or a whole tuned model in the form of another program."""
