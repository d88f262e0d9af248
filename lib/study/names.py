"""How outputs name a study: its data, network, run and files."""

from pathlib import Path

from lib.profile import departures


class Named:
    """The names of a study, from its `profile`, `info` (of the data set), `seed` and folder of `figures`."""

    @property
    def label(self) -> str:
        """The data of this study as every output names it, such as `HAM10000 (phantom data)`."""
        return f"{self.info.title} ({self.profile.label})"

    @property
    def short(self) -> str:
        """The data set's name in figures."""
        return self.info.named(phantom=self.profile.phantom is not None)

    @property
    def stamp(self) -> str:
        """What stands on every figure: data, model and profile."""
        return f"{self.profile.label}; {self.profile.backbone_title}; profile {self.profile.profile}"

    @property
    def about(self) -> str:
        """What a notebook says once of the run that it shows: data, network, seed, departures from the paper."""
        said = ", ".join(departures(self.profile)) or "nothing"
        return f"{self.short}, training run of seed {self.seed}; {self.stamp}.\nNot as in the paper: {said}."

    @property
    def data_stamp(self) -> str:
        """What stands on a figure of the data alone, which no network had a part in."""
        return f"{self.profile.label}; profile {self.profile.profile}"

    def figure(self, name: str) -> Path:
        """Path, without extension, of a figure of this data set (and seed, if not the profile's first)."""
        seed = "" if self.seed == self.profile.seeds[0] else f"_seed{self.seed}"
        return self.figures / f"{name}_{self.dataset}{seed}"
