"""The face of `notebooks/00_explore.ipynb`: controls that ask `lib.explore` and show what comes out."""

import base64
import html
import io
from contextlib import contextmanager

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lib import StudyError
from lib.data import DATASETS
from lib.explore.explorer import ATTACKS, BUDGETS, Choice, Explorer, Subject, View, open_study, read_upload
from lib.explore.pictures import draw_falls, draw_views, png
from lib.report.curves import ATTACK_TITLES
from lib.report.figures import COLOURS

SLIDER = {"base": 2, "min": np.log2(BUDGETS[0]), "max": np.log2(BUDGETS[-1]), "step": 0.25}
THUMBNAIL = 58  # CSS pixels
NARROW = {"description_width": "initial"}
ANY = -1  # in place of a class; ipywidgets shows an option whose value is None as an empty field


def describe(views: dict[str, View], choice: Choice, classes: tuple[str, ...]) -> dict[str, str]:
    """One sentence per variant: what it says of the clean and of the attacked image."""

    def says(found):
        return f"{classes[found.predicted]} ({found.probabilities.max():.0%})"

    sentences = {}
    for variant, view in views.items():
        if view.clean.predicted != view.label:
            outcome = "wrong without any attack"
        elif not view.attacked.fallen:
            outcome = "stands"
        else:
            outcome = "fooled" if choice.target is None else "led to the target"
        sentences[variant] = f"{says(view.clean)} → {says(view.attacked)}: {outcome}"
    return sentences


class Panel:
    """The controls and what they show; the last line of a cell displays it.

    Where widgets cannot run, the cell shows the state at the start as a picture. The arguments are those of
    `lib.explore.explorer.open_study`; `message` is what it has to say. `epsilon`: the first budget, in gray levels;
    the one of the profile's Grad-CAM figures when None.
    """

    def __init__(self, profile="quick", dataset="ham10000", seed=0, data="data/raw", epsilon=None):
        self._where = profile, seed, data
        study, self.message = open_study(profile, dataset, seed, data)
        epsilon = epsilon or study.profile.evaluation.gradcam_epsilon
        self._build(study, epsilon)
        self._show_study(study)
        self._watch()

    @property
    def study(self):
        """The study whose models are attacked."""
        return self.explorer.study

    def choice(self) -> Choice:
        """The attack as the controls say it."""
        steps = 1 if self.attack.value == "fgsm" else self.steps.value
        return Choice(self.attack.value, steps, _class(self.target))

    def views(self) -> dict[str, View]:
        """What is to be seen at the controls' values."""
        return self.explorer.view(self.subject, self.choice(), self.epsilon.value)

    def falls_figure(self) -> Figure:
        """Where this image falls under this attack."""
        smallest, curves = self.explorer.falls(self.subject, self.choice())
        classes, target = self.study.info.classes, self.choice().target
        if target is not None:
            goal = f"{classes[target]} (target)"
        elif self.subject.label is not None:
            goal = f"{classes[self.subject.label]} (true class)"
        else:
            goal = "the class\nnamed when clean"
        return draw_falls(smallest, curves, goal, self._label())

    def _repr_mimebundle_(self, **_):
        return self.box._repr_mimebundle_() | {"image/png": self._picture}

    # Building

    def _build(self, study, epsilon):
        names = {DATASETS[name].short: name for name in dict.fromkeys([study.dataset, *study.profile.datasets])}
        self.dataset = widgets.Dropdown(options=names, value=study.dataset, description="data set", style=NARROW)
        titles = [(ATTACK_TITLES[name], name) for name in ATTACKS]
        self.attack = widgets.Dropdown(options=titles, value="pgd", description="attack", style=NARROW)
        self.steps = widgets.BoundedIntText(20, min=1, max=500, description="steps", style=NARROW)
        self.target = widgets.Dropdown(description="towards", style=NARROW)
        self.beside = widgets.Dropdown(description="beside the baseline", style=NARROW, layout={"width": "290px"})
        self.epsilon = widgets.FloatLogSlider(
            epsilon, **SLIDER, readout_format=".3g", continuous_update=False, style=NARROW,
            description="epsilon (gray levels)", layout={"width": "430px"},
        )  # fmt: skip
        self.search = widgets.Button(description="Where does it fall?", button_style="primary")
        self.upload = widgets.FileUpload(accept="image/*", description="Own image", layout={"width": "130px"})
        self.own_class = widgets.Dropdown(description="its class", style=NARROW)
        self.thumbnails = widgets.HBox(layout={"flex_flow": "row wrap"})
        self.css, self.status, self.shown, self.fallen = (widgets.HTML() for _ in range(4))
        self.dataset.layout.width, self.attack.layout.width = "210px", "150px"
        self.steps.layout.width, self.target.layout.width = "110px", "200px"
        self.own_class.layout.width = "190px"
        row = {"flex_flow": "row wrap", "align_items": "center"}
        self.box = widgets.VBox(
            [
                self.css,
                widgets.HBox([self.dataset, self.beside, self.attack, self.steps, self.target], layout=row),
                self.thumbnails,
                widgets.HBox([self.epsilon, self.search, self.upload, self.own_class], layout=row),
                self.status,
                self.shown,
                self.fallen,
            ],
            layout={"max_width": "1020px"},
        )
        self.box.add_class("explore")

    def _watch(self):
        for control in (self.attack, self.steps, self.target):
            control.observe(lambda _: self._choose(self.subject), "value")
        self.beside.observe(lambda _: self._show_beside(), "value")
        self.epsilon.observe(lambda _: self._refresh(), "value")
        self.dataset.observe(lambda change: self._switch(change["new"]), "value")
        self.own_class.observe(lambda _: self._label_upload(), "value")
        self.upload.observe(lambda _: self._take_upload(), "value")
        self.search.on_click(lambda _: self._search())

    def _show_study(self, study):
        """Show the gallery and the classes of a study, and attack its first image."""
        self.explorer = Explorer(study)
        classes = study.info.classes
        numbered = [(name, k) for k, name in enumerate(classes)]
        self._quiet = True
        self.target.options = [("any wrong class", ANY), *numbered]
        self.own_class.options = [("what each network says", ANY), *numbered]
        self.beside.options, self.beside.value = self.explorer.others, self.explorer.shown[1]
        self.beside.layout.display = None if len(self.explorer.others) > 1 else "none"
        self._quiet = False
        rules = [
            f".explore .thumb-{i} {{ background: url(data:image/png;base64,{_thumbnail(subject)}) center / cover; }}"
            for i, subject in enumerate(self.explorer.gallery)
        ]
        self.css.value = (
            f"<style>.explore .thumb {{ width: {THUMBNAIL}px; height: {THUMBNAIL}px; padding: 0; border-radius: 4px; }}"
            ".explore .thumb.chosen { outline: 3px solid #D55E00; outline-offset: -3px; }"
            ".explore img { max-width: 100%; }" + "".join(rules) + "</style>"
        )
        self.thumbnails.children = [self._button(i, subject) for i, subject in enumerate(self.explorer.gallery)]
        self._choose(self.explorer.gallery[0])

    def _button(self, i, subject):
        button = widgets.Button(tooltip=f"{subject.name}: {self.study.info.classes[subject.label]}")
        button.add_class("thumb")
        button.add_class(f"thumb-{i}")
        button.on_click(lambda _: self._choose(subject))
        return button

    # What controls do

    def _choose(self, subject: Subject):
        if self._quiet:
            return
        self.subject = subject
        for button, other in zip(self.thumbnails.children, self.explorer.gallery, strict=True):
            (button.add_class if other is subject else button.remove_class)("chosen")
        own = subject not in self.explorer.gallery
        self.own_class.layout.display = None if own else "none"
        self.fallen.value = ""
        self._refresh()

    def _switch(self, dataset):
        profile, seed, data = self._where
        if dataset == self.study.dataset:
            return
        with self._working("opening the models ..."):
            study, self.message = open_study(profile, dataset, seed, data)
            self._show_study(study)
        self.dataset.value = self.study.dataset  # the old one if this one cannot be opened

    def _show_beside(self):
        if not self._quiet:
            self.explorer.shown = ["baseline", self.beside.value]
            self._choose(self.subject)

    def _take_upload(self):
        if self.upload.value:
            [file] = self.upload.value
            with self._working("reading the image ..."):
                self._quiet, self.own_class.value, self._quiet = True, ANY, False
                self._choose(read_upload(bytes(file["content"]), file["name"], self.study))

    def _label_upload(self):
        self._choose(Subject(self.subject.name, self.subject.pixels, _class(self.own_class)))

    def _refresh(self):
        self.steps.disabled = self.attack.value == "fgsm"
        with self._working("attacking ..."):
            views, classes = self.views(), self.study.info.classes
            sentences = describe(views, self.choice(), classes)
            self._picture = png(draw_views(views, classes, self._label(f"epsilon {self.epsilon.value:.3g}")))
            self.shown.value = _image(self._picture, "; ".join(f"{v}: {text}" for v, text in sentences.items()))
            self.status.value = _status(sentences, self._title(), self.message)

    def _search(self):
        before = self.status.value
        with self._working("searching the smallest epsilon; this takes some seconds ..."):
            self.fallen.value = _image(png(self.falls_figure()), "Outcome and probability against epsilon")
            self.status.value = before

    @contextmanager
    def _working(self, doing):
        """Say what is going on, keep the controls still meanwhile, and turn a StudyError into its sentence."""
        self.status.value = f"<p role=status>{html.escape(doing)}</p>"
        self.search.disabled = True
        try:
            yield
        except Exception as error:
            text = html.escape(str(error) if isinstance(error, StudyError) else repr(error))
            self.status.value = f'<p role=alert style="color:#B00020"><b>{text}</b></p>'
            if not isinstance(error, StudyError):
                raise  # a bug's traceback goes to JupyterLab's log, as for any widget
        finally:
            self.search.disabled = False

    def _title(self):
        label = self.subject.label
        named = "class not given" if label is None else f"true class {self.study.info.class_titles[label]}"
        return f"{self.subject.name}, {named}"

    def _label(self, *more):
        classes, label, target = self.study.info.classes, self.subject.label, self.choice().target
        own = self.subject not in self.explorer.gallery
        name = (
            self.subject.name + (" (own image)" if own else "") + (f", {classes[label]}" if label is not None else "")
        )
        data = f"networks trained on {self.study.short}" if own else self.study.short
        attack = ATTACK_TITLES[self.attack.value] + (f" towards {classes[target]}" if target is not None else "")
        return "; ".join([name, data, attack, *more, self.study.stamp])


def _class(control):
    return None if control.value == ANY else control.value


def _status(sentences, title, message):
    lines = "".join(
        f'<span style="color:{COLOURS[variant]}"><b>{variant}</b></span> {html.escape(text)}<br>'
        for variant, text in sentences.items()
    )
    note = f"<p><b>{html.escape(message)}</b></p>" if message else ""
    return f'{note}<p role=status style="line-height:1.5">{html.escape(title)}<br>{lines}</p>'


def _image(picture, alt):
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'


def _thumbnail(subject):
    buffer = io.BytesIO()
    plt.imsave(buffer, subject.pixels.astype("uint8"), format="png")
    return base64.b64encode(buffer.getvalue()).decode()
