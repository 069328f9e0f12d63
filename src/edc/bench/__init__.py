"""``edc bench``: what each stage takes, beside the bare passes of its networks, measured in one run."""
