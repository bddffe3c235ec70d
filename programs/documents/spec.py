"""`job.toml`: what a job asks of which documents, as a person can read and change it."""

import tomllib
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from programs.documents.question import Question, numbered
from programs.documents.settings import Settings
from programs.errors import ProgramError
from programs.files import write_whole

HEAD = "# A job of `small4 analyze`. Change it and run `small4 analyze --out` this folder: what is new is asked.\n\n"


class Spec(BaseModel):
    """`documents`: files and folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    settings: Settings = Field(default_factory=Settings)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ProgramError that names what is wrong with the file."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            said = first["msg"].removeprefix("Value error, ")
            raise ProgramError(f"The job {str(path)!r} cannot be read: {place}: {said}.") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ProgramError(f"The job {str(path)!r} cannot be read: {error}.") from error

    def changed(self, given: "Spec") -> "Spec":
        """With what a new command says; what it does not say stays."""
        settings = {**self.settings.model_dump(), **given.settings.model_dump(exclude_unset=True)}
        return Spec(
            documents=given.documents or self.documents,
            questions=given.questions or self.questions,
            settings=Settings.model_validate(settings),
        )

    def check(self) -> None:
        """Raises ProgramError where there is nothing to ask or nothing to ask it of."""
        if not self.documents:
            raise ProgramError("No documents are given: name files or a folder.")
        if not self.questions:
            raise ProgramError('No question is given: add -q "..." or --questions FILE.')
        numbered(self.questions)

    def asked(self) -> tuple[Question, ...]:
        """The questions, each with its id and its effort."""
        effort = self.settings.effort
        return tuple(
            question if question.effort else question.model_copy(update={"effort": effort})
            for question in numbered(self.questions)
        )

    def write(self, path: Path) -> None:
        said: dict[str, Any] = self.model_dump(exclude_none=True, by_alias=True, mode="json")
        said["questions"] = [
            {key: value for key, value in q.items() if value not in ("", [])} for q in said["questions"]
        ]
        said["documents"] = [str(Path(document).resolve()) for document in self.documents]
        try:
            write_whole(path, (HEAD + tomli_w.dumps(said)).encode())
        except UnicodeEncodeError:
            raise ProgramError(
                f"The job {str(path)!r} cannot hold a document's path that is not UTF-8: rename it, or give the folder "
                "it is in."
            ) from None
        except OSError as error:
            raise ProgramError(
                f"The job {str(path)!r} cannot be written ({error.strerror or error}): make room."
            ) from error
