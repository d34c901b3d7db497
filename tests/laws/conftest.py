import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for small_model.py, which several folders of tests share
