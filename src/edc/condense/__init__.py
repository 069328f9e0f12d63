"""How the images of a condensed set are made."""
