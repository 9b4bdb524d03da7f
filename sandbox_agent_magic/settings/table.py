"""The table of settings: name, type, default, bounds and help of each, said once.

`Settings` is a frozen dataclass whose attributes are the settings' names in lower case. `env.example`, `%agent config`,
the checks and the errors all read this table.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar

from ..errors import SettingsError

T = TypeVar("T")
Insert: TypeAlias = Literal["auto", "cells", "next-input", "inline", "none"]
"""Where a run's code, outputs and answer go. `auto`: real cells, or in a terminal the next input."""
Tier: TypeAlias = Literal["bubblewrap", "landlock"]
"""Kinds of sandbox, the stronger one first."""
_USERINFO = re.compile(r"//[^/@]*@")
"""A password may stand in an address."""


class Secret:
    """A value that never shows itself: `str`, `repr` and formatting give a mask; `reveal()` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Pass it on at once; never keep it in a message."""
        return self._value

    @property
    def masked(self) -> str:
        """The last four characters of a long value, enough to tell two keys apart."""
        return f"ends in ...{self._value[-4:]}" if len(self._value) >= 12 else "set"

    def __repr__(self) -> str:
        return f"<secret, {self.masked}>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    help: str
    section: str
    aliases: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


def option(
    default: T,
    help: str,
    *,
    section: str,
    aliases: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> T:
    """A dataclass field that carries its row of the table as metadata."""
    row = Setting("", help, section, aliases, low, high)
    made: T = dataclasses.field(default=default, metadata={"setting": row})
    return made


_OPENAI = "OpenAI, or any OpenAI-compatible server (LiteLLM proxy, Ollama, vLLM, OpenRouter, LM Studio)"
_AZURE = "Azure OpenAI (all four)"
_ANTHROPIC = "Anthropic"
_MODEL = "The model and its requests"
_BUDGET = "Budgets; reaching one ends a run, and what it has done so far is kept"
_LOCAL = "The embedded model (no key, no network after `sandbox-agent model pull`)"
_RUN = "Running code"
_LIMITS = "Limits of the sandbox (a change takes effect with %agent restart)"
_JUPYTER = "The executor `remote`: a Jupyter server, Kernel Gateway or Enterprise Gateway"
_CONTAINER = "The executor `container`: Docker or podman (see `sandbox-agent image build`)"
_SCALEBOX = "The executor `scalebox`: sandboxes in Scalebox's cloud"
_E2B = "The executor `e2b`: sandboxes in E2B's cloud"
_CLOUD = "Sandboxes in a cloud, Scalebox's or E2B's"
_NOTEBOOK = "The notebook"
_SHOW = "Messages"


@dataclass(frozen=True, repr=False)
class Settings:
    """All settings, resolved. Build it with `settings.load`."""

    agent_provider: str = option(
        "auto", "auto, openai, litellm, azure, anthropic, local, or an installed plug-in", section=_MODEL
    )
    model: str | None = option(
        None, "model name as the provider knows it; each provider has its own default", section=_MODEL
    )
    temperature: float = option(0.03, "sampling temperature", section=_MODEL, low=0, high=2)
    request_timeout: float = option(300.0, "seconds that one request may take", section=_MODEL, low=1, high=86_400)
    agent_idle_timeout: float = option(
        60.0, "seconds of silence after which a reply that has begun is given up", section=_MODEL, low=1, high=86_400
    )
    max_iterations: int = option(12, "model turns per agent cell", section=_MODEL, low=1, high=1_000)
    max_retry: int = option(3, "retries of one failed request", section=_MODEL, low=0, high=100)
    system_message: str | None = option(None, "added to the system prompt", section=_MODEL)

    openai_api_key: Secret | None = option(None, "key", section=_OPENAI)
    openai_base_url: str | None = option(
        None,
        "address of the server, such as http://localhost:4000/v1; needs no key where the server needs none",
        section=_OPENAI,
    )
    azure_openai_api_key: Secret | None = option(None, "key", section=_AZURE)
    azure_api_base: str | None = option(
        None, "endpoint, https://NAME.openai.azure.com", section=_AZURE, aliases=("AZURE_OPENAI_ENDPOINT",)
    )
    azure_api_version: str | None = option(None, "API version", section=_AZURE, aliases=("OPENAI_API_VERSION",))
    azure_deployment_name: str | None = option(None, "deployment", section=_AZURE)
    anthropic_api_key: Secret | None = option(None, "key", section=_ANTHROPIC)
    anthropic_base_url: str | None = option(None, "another address, without /v1", section=_ANTHROPIC)

    agent_budget_usd: float | None = option(
        None, "US dollars that one agent cell may cost", section=_BUDGET, low=0, high=1_000_000
    )
    agent_notebook_budget_usd: float | None = option(
        None, "US dollars that a notebook may cost, in all its runs", section=_BUDGET, low=0, high=1_000_000
    )
    agent_day_budget_usd: float | None = option(
        None, "US dollars that all your notebooks may cost in a day", section=_BUDGET, low=0, high=1_000_000
    )
    agent_budget_tokens: int | None = option(
        None,
        "tokens, read and written, of one agent cell, where the price is unknown",
        section=_BUDGET,
        low=0,
        high=10**12,
    )
    agent_notebook_budget_tokens: int | None = option(
        None, "the same of a notebook", section=_BUDGET, low=0, high=10**12
    )
    agent_day_budget_tokens: int | None = option(
        None, "the same of all your notebooks in a day", section=_BUDGET, low=0, high=10**12
    )

    agent_local_model: str = option(
        "qwen2.5-coder-0.5b", "a name of `sandbox-agent model list`, or the path of a .gguf file", section=_LOCAL
    )
    agent_local_threads: int | None = option(
        None, "threads of the model server; unset: one for each core", section=_LOCAL, low=1, high=1_024
    )
    agent_local_idle: float = option(
        600.0, "seconds without a request after which the model server ends", section=_LOCAL, low=1, high=604_800
    )
    agent_local_seed: int | None = option(
        None, "seed of the sampling, for answers that can be repeated", section=_LOCAL, low=0, high=2**31
    )

    agent_executor: str = option(
        "sandbox",
        "sandbox, container, remote, scalebox, e2b, a plug-in, or local (your own kernel; asks for --yes)",
        section=_RUN,
    )
    agent_sandbox: Tier = option(
        "bubblewrap",
        "bubblewrap; or landlock, which is weaker, for machines that forbid namespaces (never from a .env)",
        section=_RUN,
    )
    agent_cell_timeout: float = option(
        120.0, "seconds that one piece of code may run", section=_RUN, low=0.1, high=86_400
    )
    agent_trust_output: bool = option(
        False,
        "show the sandbox's rich output uncleaned: its scripts then run in your page (never from a .env, nor headless)",
        section=_RUN,
    )
    agent_workspace: str | None = option(
        None,
        "folder that the sandbox reads and writes; unset: <notebook>.sandbox beside the notebook, or a temporary one",
        section=_RUN,
    )
    custom_packages: str | None = option(
        None, "packages that the sandbox shall have besides your environment's, separated by commas", section=_RUN
    )
    agent_auto_install: bool = option(
        True, "install in the sandbox what a step imports and does not find (wheels only)", section=_RUN
    )
    agent_limit_memory: int = option(
        2_048, "MiB of memory, all processes of the sandbox together", section=_LIMITS, low=256, high=1_048_576
    )
    agent_limit_disk: int = option(
        1_024, "MiB that code may write into its workspace", section=_LIMITS, low=1, high=16_777_216
    )
    agent_limit_tmp: int = option(
        256, "MiB of /tmp, and again of /dev/shm, which are memory", section=_LIMITS, low=16, high=1_048_576
    )
    agent_limit_file: int = option(2_048, "MiB of one file", section=_LIMITS, low=1, high=16_777_216)
    agent_limit_processes: int = option(
        64, "processes and threads of the sandbox", section=_LIMITS, low=32, high=16_384
    )
    agent_limit_text: int = option(
        1,
        "MiB of text that a cell keeps, head and tail; code that prints 256 times as much is stopped",
        section=_LIMITS,
        low=1,
        high=4,
    )
    agent_limit_picture: int = option(10, "MiB of one picture", section=_LIMITS, low=1, high=64)
    agent_limit_message: int = option(
        16, "MiB of one message from the kernel, which carries a picture in base64", section=_LIMITS, low=2, high=128
    )
    agent_limit_messages: int = option(
        50_000, "messages of one cell; code that sends more is stopped", section=_LIMITS, low=100, high=10_000_000
    )
    agent_limit_packages: int = option(
        4_096, "MiB of packages installed for one folder", section=_LIMITS, low=1, high=1_048_576
    )
    agent_container_engine: str = option(
        "auto",
        "auto (podman, then docker, whichever answers), podman, docker; or its path (never from a .env)",
        section=_CONTAINER,
    )
    agent_container_image: str = option(
        "localhost/sandbox-agent", "image that containers are made of (never from a .env)", section=_CONTAINER
    )
    agent_remote_url: str | None = option(
        None, "the server's address up to /api: http://host:8888, https://hub/user/NAME", section=_JUPYTER
    )
    agent_remote_token: Secret | None = option(None, "the server's token", section=_JUPYTER)
    agent_remote_kernel: str | None = option(
        None, "kernel to start, by the name of its specification; unset: the server's default", section=_JUPYTER
    )
    agent_remote_kernel_id: str | None = option(
        None, "id of a running kernel to use instead; it is left running", section=_JUPYTER
    )
    agent_remote_env: Secret | None = option(
        None, "environment variables of the kernel, NAME=VALUE separated by commas", section=_JUPYTER
    )
    agent_remote_start_timeout: float = option(
        120.0, "seconds that a kernel may take to start and to answer", section=_JUPYTER, low=1, high=3_600
    )
    scalebox_api_key: Secret | None = option(None, "key", section=_SCALEBOX)
    scalebox_domain: str | None = option(None, "another address of its API, without https://", section=_SCALEBOX)
    scalebox_template: str | None = option(None, "template of the sandbox; unset: code-interpreter", section=_SCALEBOX)
    e2b_api_key: Secret | None = option(None, "key", section=_E2B)
    e2b_domain: str | None = option(None, "another domain, without https://", section=_E2B)
    e2b_api_url: str | None = option(
        None, "address of the API of an E2B of your own, where the domain does not say it", section=_E2B
    )
    e2b_sandbox_url: str | None = option(None, "address of the gateway to its sandboxes, likewise", section=_E2B)
    e2b_template: str | None = option(None, "template of the sandbox; unset: code-interpreter-v1", section=_E2B)
    agent_session: str | None = option(
        None, "id of a running sandbox to use instead of a new one; it is left running (--session)", section=_CLOUD
    )
    agent_keep_sandbox: bool = option(
        False, "a sandbox goes on when the notebook's kernel ends, for as long as it lives unused", section=_CLOUD
    )
    agent_sandbox_life: int = option(
        300, "seconds that a sandbox lives after it was last used", section=_CLOUD, low=60, high=86_400
    )
    agent_sandbox_env: Secret | None = option(
        None, "environment variables of the sandbox, NAME=VALUE separated by commas", section=_CLOUD
    )

    agent_insert: Insert = option(
        "auto",
        "where code and outputs go: cells, next-input (code), inline (agent cell), none; auto: cells, if there are any",
        section=_NOTEBOOK,
    )

    detailed_error: bool = option(True, "errors in up to three lines; false: one", section=_SHOW)
    debug: bool = option(
        False,
        "full tracebacks of this package's own errors; requests and replies, without keys, go to requests.log in your "
        "data folder",
        section=_SHOW,
    )

    sources: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )
    """Setting's name to where its value came from; defaults are not in it."""
    env_file: Path | None = dataclasses.field(default=None, compare=False)
    """The `.env` that was read."""

    def __repr__(self) -> str:
        """What was set, as it may be shown: a password may stand in an address, too."""
        given = (f"{row.name.lower()}={value!r}" for row, value, source in self.describe() if source != "default")
        return f"Settings({', '.join(given)})"

    def source(self, name: str) -> str:
        """Where a setting's value came from: `argument`, `environment`, the path of a `.env`, or `default`."""
        return self.sources.get(name, "default")

    def require_same_source(self, key: str, base_url: str) -> None:
        """Refuse a key that would be sent to an address which somebody else chose.

        A `.env` in a downloaded folder must not send the environment's key to a stranger.

        Args:
            key: name of the key's setting, such as `OPENAI_API_KEY`.
            base_url: name of the address's setting, such as `OPENAI_BASE_URL`.

        Raises:
            SettingsError: both are set, and by different sources.
        """
        if key not in self.sources or base_url not in self.sources or self.source(key) == self.source(base_url):
            return
        raise SettingsError(
            f"{key} is not sent to {base_url}: they come from different places.",
            name=base_url,
            source=self.source(base_url),
            why=f"{key} comes from {self.source(key)}, {base_url} from {self.source(base_url)}; "
            "a folder's .env must not send your key elsewhere.",
            hint=f"If you mean it, set both in the same place; any word will do as {key} for a server that needs none.",
        )

    def describe(self) -> Iterator[tuple[Setting, str, str]]:
        """Each row with its value as it may be shown, and its source."""
        for row in rows():
            value = getattr(self, row.name.lower())
            shown = value.masked if isinstance(value, Secret) else _USERINFO.sub("//***@", show(value))
            yield row, shown, self.source(row.name)


def rows() -> tuple[Setting, ...]:
    """The table."""
    found = []
    for field in dataclasses.fields(Settings):
        row = field.metadata.get("setting")
        if isinstance(row, Setting):
            found.append(dataclasses.replace(row, name=field.name.upper()))
    return tuple(found)


def default_of(name: str) -> object:
    """A setting's default."""
    return next(field.default for field in dataclasses.fields(Settings) if field.name == name.lower())


def show(value: object) -> str:
    """A value as one writes it in a `.env`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def env_example() -> str:
    """The text of `env.example`."""
    lines = [
        "# Settings of sandbox_agent_magic. Copy this file to .env beside your notebook and fill in what you need.",
        "# A line's value is its default; an empty value means unset. The environment wins over .env, and an option of",
        "# the magic's line over both. A key and the base URL that it goes to must be set in the same place.",
    ]
    section = ""
    for row in rows():
        if row.section != section:
            section = row.section
            lines += ["", f"# ---- {section}"]
        also = f" (also read as {', '.join(row.aliases)})" if row.aliases else ""
        lines += [f"# {row.help}{also}", f"{row.name}={show(default_of(row.name))}"]
    return "\n".join(lines) + "\n"
