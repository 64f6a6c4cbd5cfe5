"""Parameters as trees: how layers are laid out in them, and how they are held in int8."""
