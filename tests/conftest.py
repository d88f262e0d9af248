def pytest_collection_modifyitems(items):
    """The run of the whole study takes longest: start it first, beside everything else."""
    items.sort(key=lambda item: item.path.name != "test_study.py")
