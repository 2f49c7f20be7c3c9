"""Makes one plain checkpoint of a sharded one: `python consolidate.py CKPT_FOLDER OUTPUT.ckpt`."""

from engine.consolidate import main

if __name__ == "__main__":
    main()
