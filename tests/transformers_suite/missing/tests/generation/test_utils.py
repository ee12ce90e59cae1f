class GenerationTesterMixin:
    """`ModelTesterMixin` checks that only models which generate text inherit from it."""
