"""STS's GetCallerIdentity: who the platform takes every caller for."""

from __future__ import annotations

from raymaker.platform.operations.registry import Answer, Context, Request, operation


@operation("GetCallerIdentity")
def get_caller_identity(context: Context, request: Request) -> Answer:
    """Answer with the account's root, since this platform has one account and no users."""
    del request
    return {
        "UserId": context.account,
        "Account": context.account,
        "Arn": f"arn:aws:iam::{context.account}:root",
    }
