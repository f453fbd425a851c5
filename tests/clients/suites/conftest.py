"""What every suite is given: the model's name. URL and key are in the variables that OpenAI's clients read themselves."""

import os

import pytest


@pytest.fixture
def model() -> str:
    return os.environ["MODEL"]
