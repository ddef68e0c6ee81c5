import sys

from pretrain_exp.cli import main

sys.exit(main())
