"""Training and distillation with transformers' Trainer."""
