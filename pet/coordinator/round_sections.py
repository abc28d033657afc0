"""The settings that define a round: the phases, the mask config and the length of the model.

Each field declares one setting (pet/coordinator/setting_field.py). Rules between settings are in
pet/coordinator/settings.py.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pet.errors import MissingExtraError

with MissingExtraError.naming("http"):  # first: the module below needs pydantic too
    from pydantic import Field

from pet.coordinator.setting_field import (
    Count,
    LowerCase,
    NotNegative,
    Number,
    OptionalPath,
    Positive,
    Section,
    Whole,
    choice,
    setting,
)
from pet.mask_config import BoundType, DataType, GroupType, MaskConfig, MaskConfigPair, ModelType

_MAX_U32: Final = 2**32 - 1
_COUNT: Final = "a whole number, at least 1"
_UPDATE_COUNT: Final = "a whole number, at least 3"
_MIN_SECONDS: Final = "a number of seconds, at least 0"
_MAX_SECONDS: Final = "a number of seconds, above 0"
_SPARE: Final = "a whole number, at least 0"
_MIN_COUNT_HELP: Final = "Messages that the phase needs."
_MAX_COUNT_HELP: Final = "Messages that the phase takes at most; further ones are discarded."
_MIN_TIME_HELP: Final = "How long the phase lasts at least, even if it has all its messages."
_MAX_TIME_HELP: Final = "How long the phase waits for the messages it needs; then the round ends without a model."

_UpdateCount = Annotated[Whole, Field(ge=3)]


class Window(Section):
    """A minimum and a maximum. Those of two phases are equal where both values are, whichever phase they belong to."""

    min: float
    max: float

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Window):
            return NotImplemented
        return (self.min, self.max) == (other.min, other.max)

    def __hash__(self) -> int:
        return hash((self.min, self.max))


class SumCounts(Window):
    """How many messages the Sum phase needs, and takes (spec 6.3)."""

    min: Count = setting(1, _COUNT, _MIN_COUNT_HELP, older=("min_sum_count", "min_sum"))
    max: Count = setting(100, _COUNT, _MAX_COUNT_HELP, older=("max_sum_count",))


class SumTimes(Window):
    """How long the Sum phase lasts, in seconds (spec 6.3)."""

    min: NotNegative = setting(5, _MIN_SECONDS, _MIN_TIME_HELP, older=("min_sum_time",))
    max: Positive = setting(3600, _MAX_SECONDS, _MAX_TIME_HELP, without_file=60, older=("max_sum_time",))


class SumSettings(Section):
    """Selection and windows of the Sum phase."""

    prob: Annotated[Number, Field(gt=0, lt=1)] = setting(
        0.5, "a number above 0 and below 1", "The probability that a participant is drawn as a sum participant.", older=("sum",)
    )
    count: SumCounts
    time: SumTimes


class UpdateCounts(Window):
    """The same for the Update phase, where fewer than three would give a model away."""

    min: _UpdateCount = setting(3, _UPDATE_COUNT, _MIN_COUNT_HELP, older=("min_update_count", "min_update"))
    max: _UpdateCount = setting(10_000, _UPDATE_COUNT, _MAX_COUNT_HELP, older=("max_update_count",))


class UpdateTimes(Window):
    """How long the Update phase lasts, in seconds."""

    min: NotNegative = setting(10, _MIN_SECONDS, _MIN_TIME_HELP, older=("min_update_time",))
    max: Positive = setting(3600, _MAX_SECONDS, _MAX_TIME_HELP, without_file=600, older=("max_update_time",))


class UpdateSettings(Section):
    """Selection and windows of the Update phase."""

    prob: Annotated[Number, Field(gt=0, le=1)] = setting(
        0.9,
        "a number above 0 and at most 1",
        "The probability that a participant that is not drawn for sum is drawn as an update participant.",
        older=("update",),
    )
    count: UpdateCounts
    time: UpdateTimes


class Sum2Counts(Window):
    """How many messages the Sum2 phase needs, and takes: no more than there can be sum participants."""

    min: Count = setting(None, _COUNT, _MIN_COUNT_HELP, follows="pet.sum.count.min", older=("min_sum2_count",))
    max: Count = setting(None, _COUNT, _MAX_COUNT_HELP, follows="pet.sum.count.max", older=("max_sum2_count",))


class Sum2Times(Window):
    """How long the Sum2 phase lasts, in seconds."""

    min: NotNegative = setting(None, _MIN_SECONDS, _MIN_TIME_HELP, follows="pet.sum.time.min", older=("min_sum2_time",))
    max: Positive = setting(None, _MAX_SECONDS, _MAX_TIME_HELP, follows="pet.sum.time.max", older=("max_sum2_time",))


class Sum2Settings(Section):
    """Windows of the Sum2 phase."""

    spare: Whole = setting(
        1,
        _SPARE,
        "Under pet/1: answers of each group of the committee, beyond those that suffice, that Check and Sum2 wait for until"
        " their longest time is over. With one to spare a wrong answer is noticed, with two it is named.",
    )
    count: Sum2Counts
    time: Sum2Times


class ProfileSettings(Section):
    """Which profile the rounds have, and what those of pet/1 are like (docs/spec/profile.md 15.4)."""

    name: Annotated[Literal["xaynet", "pet/1"], LowerCase] = setting(
        "xaynet",
        "one of xaynet, pet/1",
        "How rounds run: as xaynet's, or with a certified set of updates and a threshold committee. Under pet/1 these count"
        " too: times of all phases, pet.update.count, model.length; not the section mask, and no probabilities.",
    )
    enrolment: OptionalPath = setting(
        None,
        'the path of an enrolment, beside pet.profile.name = "pet/1"',
        "Who may send updates and who is a member of the committee: a file of `pet enrol`, signed (`pet enrol sign`) or not.",
        is_file=True,
    )
    derivation: Annotated[Literal["pet-1/z32", "pet-1/z64"], LowerCase] = setting(
        "pet-1/z32", "one of pet-1/z32, pet-1/z64", "The field that models are masked in: four or eight bytes a weight."
    )
    data_type: Annotated[Literal["f32", "f64", "int"], LowerCase] = setting(
        "f32", "one of f32, f64, int", "The type of the weights; unsigned integers, whose totals are exact."
    )
    bound: Annotated[Number, Field(ge=2.0**-100, le=2.0**100)] = setting(
        1.0, "a number from 2^-100 to 2^100", "The largest absolute value of a scaled weight; 1 with integers."
    )
    max_updates: Annotated[Whole, Field(ge=3, le=2**24 - 1)] = setting(
        1000, "a whole number, 3 to 16777215", "The most updates in a round."
    )
    pieces_in_flight: Annotated[Whole, Field(ge=1, le=2**16 - 1)] = setting(
        8, "a whole number, 1 to 65535", "How many pieces of its vector each sender may have on their way at a time."
    )
    update_share: Annotated[Number, Field(gt=0, le=1)] = setting(
        1.0, "a number above 0 and at most 1", "The share of the enrolled participants that is selected in each round."
    )
    evidence_rounds: Count = setting(
        20, _COUNT, "For how many rounds evidence of wrong answers and bad updates is kept, in `pet-state/evidence`."
    )


class CommitteeSettings(Section):
    """The committee of pet/1."""

    spare: Whole = setting(
        1,
        _SPARE,
        "Under pet/1: members beyond those that a committee needs that the Sum phase waits for until its longest time is over.",
    )


class CheckTimes(Window):
    """How long the Check phase of pet/1 lasts, in seconds."""

    min: NotNegative = setting(5, _MIN_SECONDS, _MIN_TIME_HELP)
    max: Positive = setting(600, _MAX_SECONDS, _MAX_TIME_HELP)


class CheckSettings(Section):
    """The Check phase of pet/1."""

    time: CheckTimes


class PetSettings(Section):
    """Section `pet`: the profile, and the phases of a round."""

    profile: ProfileSettings
    committee: CommitteeSettings
    sum: SumSettings
    update: UpdateSettings
    check: CheckSettings
    sum2: Sum2Settings

    @property
    def is_pet1(self) -> bool:
        """Whether rounds are of profile pet/1."""
        return self.profile.name == "pet/1"


class MaskSettings(Section):
    """Section `mask`: the mask config, used for the model and its scalar alike (spec 2.5)."""

    group_type: Annotated[GroupType, choice(GroupType)] = setting(
        "Prime", "one of Integer, Prime, Power2", "The kind of finite group; `pet config advise` finds the cheapest config."
    )
    data_type: Annotated[DataType, choice(DataType)] = setting("F32", "one of F32, F64, I32, I64", "The type of the weights.")
    bound_type: Annotated[BoundType, choice(BoundType)] = setting(
        "B0",
        "one of B0, B2, B4, B6, Bmax",
        "The largest absolute value of a scaled weight: 10 to this power, Bmax for the largest of the type.",
    )
    model_type: Annotated[ModelType, choice(ModelType)] = setting(
        "M3", "one of M3, M6, M9, M12", "The most models in a round: 10 to this power."
    )

    def to_mask_config(self) -> MaskConfigPair:
        """Return the mask config of a round."""
        return MaskConfigPair.of(MaskConfig(self.group_type, self.data_type, self.bound_type, self.model_type))


class ModelSettings(Section):
    """Section `model`: its number of weights, which a message counts in 32 bits."""

    length: Annotated[Whole, Field(ge=1, le=_MAX_U32)] = setting(
        4, "a whole number of weights, from 1 to 4294967295", "The number of weights of the model.", older=("size",)
    )
