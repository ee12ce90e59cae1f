"""Training and distillation with transformers' Trainer, with resuming and fault handling."""
