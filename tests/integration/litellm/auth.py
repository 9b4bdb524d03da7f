"""Keys of the test proxy. It enforces rates and models itself; without a database it counts no spending of a key, so
the budget's own error is raised here, and put into words by the proxy."""

import litellm
from fastapi import Request
from litellm.proxy._types import ProxyException, UserAPIKeyAuth


async def user_api_key_auth(request: Request, api_key: str) -> UserAPIKeyAuth:
    """The rights of a key."""
    key = (api_key or "").removeprefix("Bearer ")
    match key:
        case "sk-good-0123456789":
            return UserAPIKeyAuth(api_key=key)
        case "sk-budget-0123456789":
            raise litellm.BudgetExceededError(current_cost=1.0, max_budget=0.00001)
        case "sk-rate-0123456789":
            return UserAPIKeyAuth(api_key=key, rpm_limit=1)
        case "sk-other-model-0123456789":
            return UserAPIKeyAuth(api_key=key, models=["no-tools"])
    raise ProxyException(
        message=f"Authentication Error, Invalid proxy server token passed. Received API Key = {key[:12]}",
        type="token_not_found_in_db",
        param="key",
        code=401,
    )
