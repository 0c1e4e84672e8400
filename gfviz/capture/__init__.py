"""Floor 3: running a model over texts and keeping its graph. The module is callable: `gv.capture(model, texts)`."""

import sys
from types import ModuleType

from gfviz.capture.corpus import capture
from gfviz.capture.models import LoadedModel, load_model, load_tokenizer
from gfviz.capture.texts import Text, read_texts

__all__ = ["LoadedModel", "Text", "capture", "load_model", "load_tokenizer", "read_texts"]


class _CallableModule(ModuleType):
    # The public name gv.capture and the package gfviz.capture are one attribute of gfviz; calling either must work
    # whatever was imported first. Assigning a module's __class__ is documented for this (Python data model, modules).
    __call__ = staticmethod(capture)


sys.modules[__name__].__class__ = _CallableModule
