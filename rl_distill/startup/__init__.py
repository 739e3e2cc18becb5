"""What is looked at before the first expensive stage, by every program: models, prompts, rewards, folders.

Everything that would stop or spoil a run later is found here and told together.
    findings.py   one thing looked at; how several are told
    files.py      folders, disk space, the lock of a run, packages
    models.py     folders of models, tokenizers, positions, vocabularies, LoRA's targets
    rewards.py    columns that reward functions need; gold answers scored once
    preflight.py  all of it for one run
"""
