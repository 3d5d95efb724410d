"""The errors of the house; each is named by what the caller does next.

```text
FactoryError                 ours; its text is for the model
├── InvalidRequestError      can never work; says which argument and why
├── NotFoundError            the component answered: no such thing
├── ConflictError            it changed since you looked; look again
├── UnavailableError         no answer in time; state unknown; only reads may be retried
└── ComponentError           the component failed and said so; carries its code
```

A refusal by policy or by people is not an error: it is a `Change` in state `refused`.
"""


class FactoryError(Exception):
    """Base of every error we raise on purpose; `str(error)` may be shown to a model."""


class InvalidRequestError(FactoryError):
    """The request can never work as it stands; nothing was done."""


class NotFoundError(FactoryError):
    """The component answered that there is no such thing; nothing was done."""


class ConflictError(FactoryError):
    """The thing changed since the caller looked; nothing was done, look again."""


class UnavailableError(FactoryError):
    """No answer in time. After a read nothing happened; after a write the state is unknown."""


class ComponentError(FactoryError):
    """The component answered that it failed.

    Attributes:
        component: the component that failed, such as `maxlps`.
        code: its own code or short word, such as `NOT_STRICT` or `UNIMPLEMENTED`.
    """

    def __init__(self, component: str, code: str, message: str) -> None:
        super().__init__(f"{component} failed with {code}: {message}")
        self.component = component
        self.code = code
