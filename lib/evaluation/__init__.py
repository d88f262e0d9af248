"""How robust a classifier is: robust accuracy and its search, outcomes of a study, statistics, and the claims."""

import lazy_loader

# Whoever needs the statistics or the claims alone does not wait for the attacks and Keras.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attacked": ["directions", "outcomes", "outcomes_of_one", "run_variant", "trust_checks"],
        "robustness": ["robust_accuracy"],
        "suite": ["benchmark"],
    },
)
