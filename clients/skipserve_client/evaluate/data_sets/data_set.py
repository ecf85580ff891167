"""What every published data set is: a name, the files that it needs, and how they are read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.data_sets.order import first_units
from skipserve_client.evaluate.sample import Questions, Sample

# Where a question stands among those that are asked is said once all have been read.
UNPLACED = -1


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes:
        name: what `--data` takes.
        holds: the files that `--data-folder` holds, as their authors publish them.
        read: returns the questions, in any order, with `UNPLACED` for their place.
    """

    name: str
    holds: str
    read: Callable[[Folder], Iterable[Sample]]

    def questions(self, path: Path | None, count: int | None) -> Questions:
        """Read the first `count` questions, all for None; of groups of them, so many groups.

        Raises:
            CommandError: no folder was named, or a file or a picture is missing or of another
                form.
        """
        if path is None:
            raise CommandError(
                f"--data {self.name}: name with --data-folder where {self.holds} lie"
            )
        folder = Folder(self.name, path, self.holds)
        if not path.exists():
            raise CommandError(
                f"--data {self.name}: there is no folder {path}; --data-folder holds {self.holds}"
            )
        samples = first_units(self.read(folder), count)
        if not samples:
            raise CommandError(f"--data {self.name}: {path} holds no question")
        for picture in {sample.image for sample in samples if isinstance(sample.image, Path)}:
            if not picture.is_file():
                raise folder.missing(str(picture.relative_to(path)))
        return Questions(self.name, samples)
