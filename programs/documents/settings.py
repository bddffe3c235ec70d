"""What holds for all questions of a job."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from programs.documents.plan import Budget

TRACE = 4096  # tokens, where nothing else is said and the context has room


class Settings(BaseModel):
    """`effort` of questions that name none. `temperature`: by default the effort's own. `budget`: most tokens of a
    trace; `max_tokens`: of an answer; `part_tokens`: of a document at once; `overlap`: that two parts share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    effort: Literal["none", "high", "auto", "deliberate"] = "none"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    budget: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    part_tokens: Annotated[int, Field(ge=64)] | None = None
    overlap: Annotated[int, Field(ge=0)] = 256

    def tokens(self, context: int | None) -> Budget:
        """What may be spent in a context of so many tokens; of a server that does not tell, the model's 256K."""
        context = context or 262_144
        trace = min(TRACE, context // 4) if self.budget is None else self.budget
        return Budget(context, trace, min(self.max_tokens, context // 4), self.part_tokens, self.overlap)
