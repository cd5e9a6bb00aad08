"""`DistillTrainer`: a transformers.Trainer with a distillation objective, a token-weighted held-out score, and
checkpoints that count only once they are committed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import ExportableState, TrainerState

from distillkit.console import ProgressHandle
from distillkit.data.batching import HostColumns, LengthGroupedSampler
from distillkit.data.step_shares import StepShare, shared_loader
from distillkit.errors import DistillkitError
from distillkit.interrupts import pending
from distillkit.models.backbone_and_head import SplitModel
from distillkit.models.save_errors import plain_save_errors
from distillkit.models.training_attention import quick_attention
from distillkit.processes.group import ALONE, Group
from distillkit.teachers.protocol import TeacherSource
from distillkit.training import checkpoints
from distillkit.training.divided import DividedStudent
from distillkit.training.early_stopping import NEVER, SCORE, EarlyStopping, StopEarly
from distillkit.training.metrics_log import MetricsLog
from distillkit.training.micro_batch import MicroBatchLoss
from distillkit.training.number_watch import NumberWatch
from distillkit.training.objectives import Objective, Weights
from distillkit.training.on_policy import OnPolicy
from distillkit.training.on_policy_schedule import NO_SHARE
from distillkit.training.optimizers import muon_and_adamw
from distillkit.training.progress import Progress
from distillkit.training.schedules import CONSTANT, Course, keep_to_schedule, schedule_factor, training_fraction
from distillkit.training.several import own_stream, random_states, random_states_of, restore_random_states
from distillkit.training.step_end import StepEnd
from distillkit.training.step_figures import StepFigures


class DistillTrainer(Trainer):
    """Trains a student on α · soft + β · hard.

    The loss of an optimizer step is the sum over all its unmasked targets divided once by their number, over
    micro-batches and processes alike, so that accumulation does not change it.

    Args:
        objective: computes the terms of a micro-batch.
        alpha, beta: their weights at the beginning.
        schedule: "linear", "cosine" or "constant", after the warm-up.
        lengths: tokens of each training example, for batches of like lengths.
        held_out_score: the model, and the same taken apart, to bits per byte on the validation part; all processes call it, and get
            the same.
        fingerprint: what checkpoints belong to.
        on_best: called with the model whenever the held-out score is the best so far; gives the files that it wrote, as
            `storage.file_records`.
        metrics_log, progress: where figures go.
        display: the progress display.
        teacher: the source of the teacher's targets; None where there is none.
        compile_kernels: whether the element-wise part of the loss is compiled.
        role: of the model, for messages.
        remedy: what helps where the learning rate turns out too high.
        course: how the weights, and the temperature of the objective, go over the training.
        muon: whether the optimizer is Muon with AdamW beside it, whatever `args.optim` says.
        stopping: when it ends before its last step.
        on_policy: the steps in which the student learns from what it writes; None where there are none.
        group: the processes that train together, each with the same arguments. Process 0 alone writes and shows anything.
        divided: whether the student is divided over these processes, of which there are several; else each has all of it.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        objective: Objective,
        alpha: float,
        beta: float,
        schedule: str,
        lengths: list[int],
        held_out_score: Callable[[nn.Module, SplitModel], float],
        fingerprint: str,
        on_best: Callable[[nn.Module], list[dict[str, Any]]] | None,
        metrics_log: MetricsLog,
        progress: Progress,
        display: ProgressHandle,
        teacher: TeacherSource | None = None,
        compile_kernels: bool = False,
        role: str = "student",
        remedy: str = "lower --learning-rate",
        course: Course = CONSTANT,
        muon: bool = False,
        stopping: EarlyStopping = NEVER,
        on_policy: OnPolicy | None = None,
        group: Group = ALONE,
        divided: bool = False,
        **kwargs: Any,
    ) -> None:
        # Every GPU gets its own process; without a launcher the Trainer would fall back to nn.DataParallel.
        args._n_gpu = min(args.n_gpu, 1)
        self._divided = DividedStudent(model, args.device, group) if divided else None
        super().__init__(model=model, args=args, **kwargs)
        self.objective = objective
        self.alpha, self.beta = alpha, beta
        self.schedule = schedule
        self.lengths = lengths
        self.held_out_score = held_out_score
        self.fingerprint = fingerprint
        self.on_best = on_best
        self.compile_kernels = compile_kernels
        self.course = course
        self.muon, self.stopping = muon, stopping
        self.loss_is_scaled_for_ga = True
        self.group = group
        self.teacher = teacher
        self.on_policy = on_policy
        on_policy_steps = NO_SHARE if on_policy is None else on_policy.steps
        self.figures = StepFigures(progress, metrics_log, display, objective, teacher, group, on_policy_steps)
        self._agreed_signal: int | None = None
        autocast: Any = self.accelerator.autocast
        self._micro_batch_loss = MicroBatchLoss(model, objective, teacher, group, autocast)
        if not group.leads:
            own_stream(args.seed, group.rank)
        if self.accelerator.ddp_handler is not None:
            # Gradients then lie where DDP adds them up over the processes, and not a second time beside it.
            self.accelerator.ddp_handler.gradient_as_bucket_view = True
        self._watch = NumberWatch(role, remedy, teacher, display, self._get_learning_rate)
        self.remove_callback(PrinterCallback)
        self.add_callback(StepEnd(display, self.signal_received))
        if stopping.patience:
            self.add_callback(StopEarly(stopping))

    @property
    def stopped_early(self) -> bool:
        """Whether it ended before its last step because it got no better."""
        return self.state.global_step < self.state.max_steps and self.stopping.reached(self.state.log_history)

    @property
    def gathers_all(self) -> bool:
        """Whether the student is divided, and gathered as a whole where it computes."""
        return self._divided is not None and not self._divided.blocks

    @property
    def stopped_by_signal(self) -> bool:
        """Whether a signal ended it before its last step."""
        unfinished = self.state.global_step < self.state.max_steps and not self.stopped_early
        return unfinished and self.signal_received() is not None

    def student(self) -> nn.Module:
        """The model, whole and as it is now. Where it is divided all processes call this, and process 0 alone gets it."""
        return self._own_model() if self._divided is None else self._divided.whole()

    def gather(self) -> None:
        """After a training: the model of process 0 is whole, in the memory of the processor if it was divided. All call it."""
        if self._divided is not None:
            self.model = self.student()

    def _own_model(self) -> nn.Module:
        """What this process has of the model, without what it is wrapped in."""
        return self.accelerator.unwrap_model(self.model)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if self._divided is None:  # Else its parts are moved when it is divided: all of it may not fit there.
            super()._move_model_to_device(model, device)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with quick_attention():
            return super().train(*args, **kwargs)

    def take_over(self, checkpoint: Path) -> None:
        """Become what a training was at its end, without a step: in the middle of an epoch the Trainer would go on."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))

    # --- data ---

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        # However a step is split into micro-batches and over processes, its examples are the same.
        split = self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler(self.lengths, self.args.train_batch_size * split, self.args.seed)

    def get_train_dataloader(self) -> DataLoader[Any]:
        if self.group.alone:
            return super().get_train_dataloader()
        arguments = self.args
        share = StepShare(arguments.train_batch_size, arguments.gradient_accumulation_steps)
        sampler, collator = cast("Any", self._get_train_sampler()), cast("Any", self.data_collator)
        loader = shared_loader(
            self.train_dataset, collator, sampler, share, self.group, pin_memory=arguments.dataloader_pin_memory
        )
        # The shares are made already: accelerate would make even ones by repeating examples.
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The micro-batches of a step, and how many targets they have. Loaders fetch ahead of the steps: so it is here that the
        student, as it is now, writes those of an on-policy step."""
        batches, targets = super().get_batch_samples(epoch_iterator, num_batches, device)
        step = self.state.global_step
        if self.on_policy is None or not batches or not self.on_policy.has(step):
            return batches, targets
        own = self.on_policy.batches(step, batches, self.accelerator.unwrap_model(self.model))
        return own, self._get_num_items_in_batch(own, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        hosts: list[HostColumns] = [batch["host"] for batch in batch_samples]
        targets = sum(host.targets for host in hosts)
        if not self.group.alone:
            everybody = self.group.exchange([targets, pending() or 0])
            targets = int(sum(numbers[0] for numbers in everybody))
            self._agreed_signal = int(max(numbers[1] for numbers in everybody)) or None
        return torch.tensor(targets, device=device)

    def signal_received(self) -> int | None:
        """The number of a signal that asks to stop: at the end of a step all processes agree on it."""
        return pending() if self.group.alone else self._agreed_signal

    # --- optimizer and schedule ---

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The one that `args.optim` names, or Muon. The weights of a checkpoint are loaded by now, and no others will be."""
        if self._divided is not None:
            self._divided.divide()
        if self.muon and self.optimizer is None:
            trained: Any = self.model if model is None else model
            decayed = self.get_decay_parameter_names(trained)
            self.optimizer = muon_and_adamw(trained, self.args.learning_rate, self.args.weight_decay, decayed)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate of each step, see `schedule_factor`."""
        if self.lr_scheduler is None:
            warmup = int(self.args.warmup_steps)
            factor = functools.partial(schedule_factor, self.schedule, warmup, num_training_steps)
            target: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(target, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Also of a divided student; the rate is that of this training's schedule."""
        if self._divided is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            optimizer, schedule = cast("Any", self.optimizer), cast("Any", self.lr_scheduler)
            self._divided.load_optimizer(optimizer, Path(checkpoint) / OPTIMIZER_NAME)
            schedule.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
        scheduler: Any = self.lr_scheduler
        if checkpoint is not None and isinstance(scheduler, LambdaLR):
            keep_to_schedule(scheduler)

    # --- loss ---

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """(α·Σ soft + β·Σ hard) / N of one micro-batch, α and β being those of this step, N the targets of the whole step.

        Raises:
            DistillkitError: the loss is not finite; nothing of this step reaches the weights.
        """
        host: HostColumns = inputs["host"]
        count = torch.as_tensor(num_items_in_batch if num_items_in_batch is not None else host.targets)
        divisor = count.to(inputs["input_ids"].device).clamp(min=1)
        fraction = training_fraction(self.state.global_step, self.state.max_steps)
        if host.sampled:  # There are no true tokens: the whole weight is the teacher's.
            alpha, beta = self.alpha + self.beta, 0.0
        else:
            alpha, beta = self.course.weights(self.alpha, self.beta, fraction)
        weights = Weights(alpha, beta, divisor, fraction, self.compile_kernels)
        loss, soft_sum, hard_sum = self._micro_batch_loss(model, inputs, weights)
        # One transfer for all three: for the log, and to stop in time.
        value, soft, hard = torch.stack([loss.detach(), soft_sum / divisor, hard_sum / divisor]).tolist()
        self._watch.check_loss(value, inputs, self.state.global_step)
        self.figures.add(
            soft=soft, hard=hard, loss=alpha * soft + beta * hard, targets=host.targets, sampled=host.sampled
        )
        return (loss, {}) if return_outputs else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        scaled = self.accelerator.scaler is not None
        self._watch.check_gradient(None if norm is None else float(norm), self.state.global_step, scaled=scaled)
        return norm

    # --- figures ---

    @property
    def progress(self) -> Progress:
        """The sums of the training so far."""
        return self.figures.progress

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss terms, and write the line to metrics.jsonl."""
        step = self.state.global_step
        if "loss" in logs:
            epoch = float(self.state.epoch or 0)
            logs = self.figures.loss_line(step, epoch, logs, self._changing(), soft=bool(self.alpha))
        elif SCORE in logs:
            self.figures.held_out_line(step, logs)
        super().log(logs, start_time)

    def _changing(self) -> dict[str, float]:
        """The weight and the temperature of the last step, where they change over the training."""
        fraction = training_fraction(self.state.global_step - 1, self.state.max_steps)
        return self.course.figures(self.alpha, self.beta, fraction)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Held-out bits per byte: token-weighted sums over documents, not a mean of batch means.

        Raises:
            DistillkitError: there is no finite score; this comes before a checkpoint of the step.
        """
        try:
            value = self.held_out_score(self._own_model(), self._micro_batch_loss.parts)
        except DistillkitError as error:
            raise self._watch.unscored(error, self.state.global_step) from error
        metrics = {SCORE: value}
        self._watch.compare_score(value, self.state.log_history, self.state.global_step)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best:
            self.state.best_global_step = self.state.global_step
            if (keep := self.on_best) is not None:
                student = self.student()
                self.progress.best = self.group.by_leader(lambda: keep(student))
        return is_best

    # --- checkpoints ---

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        root, step = Path(str(self.args.output_dir)), self.state.global_step
        final = checkpoints.checkpoint_folder(root, step)
        if self.group.by_leader(lambda: checkpoints.problem(final) is None):
            return
        self.figures.bring_up_to_date()
        self.figures.collect_counts()
        states = [] if self.group.alone else self.group.gather(random_states())
        student, optimizer = self.student(), cast("Any", self.optimizer)
        remembered = None if self._divided is None else self._divided.optimizer_state(optimizer)
        self.group.by_leader(lambda: self._write_checkpoint(student, root, step, states, remembered))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.group.alone or checkpoint is None:
            super()._load_rng_state(checkpoint)
        else:
            restore_random_states(Path(checkpoint), self.group.rank, self.args.seed + self.state.global_step)

    def _write_checkpoint(
        self,
        student: nn.Module,
        root: Path,
        step: int,
        states_of_all: list[bytes],
        remembered: dict[str, Any] | None = None,
    ) -> None:
        """Commit a checkpoint.

        Args:
            student: of all its parts.
            states_of_all: the random states of several processes, by rank.
            remembered: the optimizer's state, of all its parts; default: as this process has it.
        """
        trained = [weights for weights in student.parameters() if weights.requires_grad]
        self._watch.check_weights(trained, step)

        def fill(folder: Path) -> None:
            with plain_save_errors(folder):
                self._save_student(folder, student)
                if remembered is None:
                    self._save_optimizer_and_scheduler(str(folder))
                else:
                    torch.save(remembered, folder / OPTIMIZER_NAME)
                    torch.save(cast("Any", self.lr_scheduler).state_dict(), folder / SCHEDULER_NAME)
                self._save_scaler(str(folder))
                if self.group.alone:
                    self._save_rng_state(str(folder))
                for rank, held in enumerate(states_of_all):
                    random_states_of(folder, rank).write_bytes(held)
            states: Any = self.state.stateful_callbacks
            for exportable in self._exportable():
                states[type(exportable).__name__] = exportable.state()
            self.state.save_to_json(str(folder / "trainer_state.json"))
            self.figures.settled().save(folder)
            if self.on_policy is not None:
                self.on_policy.save(folder)

        self.figures.metrics_log.sync()
        # The weights and the optimizer's two moments of each, in fp32.
        checkpoints.write(root, step, self.fingerprint, fill, 3 * 4 * sum(weights.numel() for weights in trained))

    def _save_student(self, folder: Path, student: nn.Module) -> None:
        """Write what a checkpoint has of the student's weights."""
        if self._divided is None:
            self.save_model(str(folder), _internal_call=True)
        else:
            cast("Any", student).save_pretrained(str(folder))

    def _exportable(self) -> Iterator[ExportableState]:
        for candidate in [*self.callback_handler.callbacks, self.control]:
            if isinstance(candidate, ExportableState):
                yield candidate
