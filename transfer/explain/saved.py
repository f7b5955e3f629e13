"""What a folder of explanations holds, without the keys of its images: what `transfer report --explanations` reads."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.html import Html, tag
from encoders.runtime.json_types import Json
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

FORMAT = "isograft-explanations"
MEANING = (
    "A map says which pixels the network used for the label, as far as the method is faithful. It does not say where a disease is, and a "
    "map that looks right is no evidence that the prediction is. Each map is scaled by its own largest value."
)
CSV_NAME, JSON_NAME, MAPS_NAME, PAGE_NAME = "explanations.csv", "explanations.json", "maps.h5", "index.html"


@dataclass(frozen=True)
class SavedExplanation:
    """One image. number: of it in the folder.  pictures: method -> name of the file."""

    number: int
    label: str
    probability: float
    decision: str
    pictures: Mapping[str, str]

    def asdict(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True)
class SavedFolder:
    """A folder of explanations. mark: whether its images are of patients, in words."""

    folder: Path
    model: str
    task: str
    mark: str
    images: list[SavedExplanation]


def read_explanations(folder: Path) -> SavedFolder:
    """The folder that `transfer explain` wrote. Raises InputError for another one, and for a picture outside of it."""
    path = folder / JSON_NAME
    if not path.is_file():
        raise InputError(f"{folder} holds no {JSON_NAME}; name a folder that `transfer explain --out` wrote")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {str(content['format'])[:40]!r}")
        images = [
            SavedExplanation(
                int(entry["number"]),
                str(entry["label"]),
                float(entry["probability"]),
                str(entry["decision"]),
                {str(name): str(file) for name, file in entry["pictures"].items()},
            )
            for entry in content["images"]
        ]
        saved = SavedFolder(folder, str(content["model"]), str(content["task"]), str(content["mark"]), images)
    except READ_ERRORS as error:
        raise InputError(f"{path} cannot be read: {describe_reason(error)}; run `transfer explain` again") from error
    for image in images:
        for name in image.pictures.values():
            if Path(name).name != name or not (folder / name).is_file():
                raise InputError(f"{folder} lacks the picture {name[:80]}; run `transfer explain` again")
    return saved


def picture_element(path: Path, caption: str) -> Html:
    """A PNG file as an element of a page that fetches nothing."""
    return tag("img", src="data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), alt=caption)
