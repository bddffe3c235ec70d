"""Long documents: read, asked many questions, every answer tied to its place. `small4 analyze` runs it as a job."""

JOURNAL = "journal.sqlite"  # in the folder of each job
