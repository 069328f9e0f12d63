"""What a person writes: the models of the YAML files, their composition, and the plan made of them."""
