"""Language modelling: documents, objectives and the tasks made of them."""
