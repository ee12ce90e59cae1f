import pytest
from small_trainings import labelled
from transformers.utils import logging


@pytest.fixture
def logs(caplog):
    """What the library logs: `logs.text`."""
    logger = logging.get_logger()
    logger.propagate = True
    yield caplog
    logger.propagate = False


@pytest.fixture
def config(tiny_config):
    """Of a tiny network, with names of its classes."""
    return labelled(tiny_config)
