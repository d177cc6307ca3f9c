"""The stages: teach, tailor, prune, finetune, and fit, which does them all. Each reads files and writes one file.

teach.py     step 1: the whole backbone, fine-tuned: the teacher
tailor.py    steps 2 and 3: the student, trained on Eq. 12
prune.py     step 4: what the attention says is unimportant goes
finetune.py  step 5: what remains, retrained without the complexity term
fit.py       steps 4 and 5 until the leanest network is found; trials.py: its trainings, rows; candidate.py: one of them
latencies.py where a student's latencies come from when they are its cost
job.py       what the training stages share: data, machine, run directory
"""
