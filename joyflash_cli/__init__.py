"""JoyFlash: a talking-head video from one picture and one voice, of any length, in real time."""

__version__ = "0.1.0"
