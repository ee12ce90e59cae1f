class ExportTesterMixin:
    """The base class of `ModelTesterMixin`, without its tests."""
