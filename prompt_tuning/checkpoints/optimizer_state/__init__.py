"""Second moments in checkpoints, for runs that go on from another one's."""
