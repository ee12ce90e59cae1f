import pytest
from transformers.utils import logging


@pytest.fixture
def logs(caplog):
    """What the library logs: `logs.text`."""
    logger = logging.get_logger()
    logger.propagate = True
    yield caplog
    logger.propagate = False
