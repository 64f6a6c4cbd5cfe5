"""Parameters as trees: how layers are laid out in them, how they are held in int8, what folds into what."""
