"""tlkit: transfer learning for image classification with little data.

The public names, listed in ``__init__.pyi``, are loaded on first use, so that importing tlkit imports neither
torch nor timm.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
