"""The words that options of the ingest commands accept. This module imports nothing, so that the command line starts quickly."""

from typing import Literal

ResizeRule = Literal["pad", "crop", "squash", "none"]
SquareRule = Literal["pad", "crop", "squash"]  # the rules that give a square
Codec = Literal["raw", "jpeg"]
KeyMode = Literal["auto", "file", "hash"]
Voi = Literal["auto", "lut", "window", "none"]
ArrayLayout = Literal["auto", "NHWC", "NCHW"]
ChannelChoice = Literal["auto", "1", "3"]
FixedChannels = Literal["1", "3"]
StainMethod = Literal["macenko", "reinhard"]
SliceAxis = Literal["axial", "coronal", "sagittal"]
HairMethod = Literal["dullrazor"]
BitsChoice = int | Literal["auto"]  # bits that 16-bit files use, 9 to 16; auto: found by their largest values
PhantomName = Literal["cxr", "cxr_edema", "cxr_nodule", "histology"]
CombineMode = Literal["error", "max", "any", "mean", "majority"]  # what becomes of rows of one image that disagree
