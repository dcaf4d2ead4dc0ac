"""How far a training is, or one of several."""

from __future__ import annotations

from typing import Any

from omg_graph.cli.output import bars, note, stderr_console


class TrainingBars:
    """A bar for each stage, with its loss; plain lines where no terminal shows them."""

    def __init__(self, several: str = "models") -> None:
        """Say what the runs are, where there are several."""
        self.several = several

    def __enter__(self) -> TrainingBars:
        from rich.progress import TextColumn

        self.console = stderr_console()
        self.bar = bars(TextColumn("{task.fields[loss]}", markup=False))
        self.bar.start()
        self.tasks: dict[str, Any] = {}
        self.model = ""
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def of_model(self, model: str, number: int, of: int, event: dict[str, Any]) -> None:
        """Show one event of one of several runs, with a bar for all of them."""
        if model != self.model:
            self.model = model
            for task in self.tasks.values():
                self.bar.remove_task(task)
            self.tasks = {
                self.several: self.bar.add_task(self.several, total=of, completed=number - 1, loss=model)
            }
        self.told(event)

    def told(self, event: dict[str, Any]) -> None:
        """Show one event of the training graph."""
        what, done, of = str(event["stage"]).replace("_", " "), event["done"], event["of"]
        loss = "" if event["loss"] is None else f"loss {event['loss']:.4f}"
        what = f"{self.model}: {what}" if self.model else what
        if done and not self.console.is_terminal and done == of:
            note(f"{what}: {done}/{of} {loss}".rstrip())
        if not done:
            return
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=of, loss=loss)
        self.bar.update(self.tasks[what], completed=done, total=of, loss=loss)
