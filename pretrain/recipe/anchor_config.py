"""The terms that hold an encoder to the weights that it starts from."""

from pydantic import Field

from encoders.runtime.config import Config


class AnchorConfig(Config):
    """Terms of the loss beside that of the method; each is off at 0 and then costs nothing. They need `init`."""

    relational: float = Field(
        0.0, ge=0, description="weight of relational distillation from the frozen start (Park et al. 2019, RKD-D; published: 25); 0: off"
    )
    l2_sp: float = Field(
        0.0,
        ge=0,
        description="coefficient a of a/2 times the squared distance of the backbone's weights from their start (Li et al. 2018, L2-SP; "
        "published: 0.001 to 1), in place of the backbone's weight decay; 0: off",
    )

    @property
    def active(self) -> bool:
        """Whether a term is on."""
        return self.relational > 0 or self.l2_sp > 0
