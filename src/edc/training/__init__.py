"""How networks are trained: optimisers, schedules, losses, soft labels, CUDA graphs."""
