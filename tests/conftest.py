import pytest
from hypothesis import settings

# No test depends on how fast the machine is.
settings.register_profile("study", deadline=None, print_blob=True)
settings.load_profile("study")

LONGEST = ["test_study.py", "test_own_data.py", "test_explore_browser.py", "test_site.py", "test_training.py"]


def pytest_collection_modifyitems(items):
    """Start the files that take longest first, so that no worker is left alone with one at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="module")
def few_resamples():
    """A bootstrap that is drawn less often, for modules that do not look at its digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.evaluation.statistics.PAIRED_RESAMPLES", 500)
        yield
