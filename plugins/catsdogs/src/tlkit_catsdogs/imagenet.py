"""Which of ImageNet's 1,000 classes are cats, and which are dogs."""

from __future__ import annotations

#: Options of the head `class-groups`: five kinds of domestic cat (tabby to Egyptian), 118 breeds of dog.
GROUPS = {"cat": "281-285", "dog": "151-268"}
