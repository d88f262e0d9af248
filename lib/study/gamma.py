"""Gamma of the soft-attention block while it is trained."""

import pandas as pd


def by_step(study) -> pd.DataFrame:
    """Gamma after every training step of the attention networks of all seeds, also under the profile's `contrast`.

    Columns dataset, variant, seed, setting, epoch, step, gamma; no row for a profile that trains no gamma. Trains what
    is not there yet.
    """
    contrast = study.profile.contrast_of(study.dataset)
    named = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in contrast.items() if key != "epochs")
    tables = []
    for setting, changes in {"this run": {}, named: contrast}.items() if contrast else [("this run", {})]:
        for seed in study.profile.seeds_of("attention"):
            other = study.with_seed(seed).under(**changes)
            other.history("attention")
            steps = pd.read_csv(other.directory("attention") / "gamma.csv").assign(setting=setting)
            tables.append(other.gather(lambda _, steps=steps: steps, ["attention"]))
    columns = ["dataset", "variant", "seed", "setting", "epoch", "step", "gamma"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
