"""Why git, or this product, does not do what was asked; each with a way on."""

from craftastic.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable


class NoWorktree(InvalidInput):
    """The session's environment has no repository."""

    code = "NO_WORKTREE"


class WorktreeMissing(Conflict):
    """The folder of the session's worktree is gone, or is no worktree; attaching makes it again."""

    code = "WORKTREE_MISSING"


class RepositoryNotFound(NotFound):
    """The environment has no repository, or it is not cloned yet."""

    code = "REPOSITORY_NOT_FOUND"


class RefNotFound(NotFound):
    """No branch, tag or commit of the repository has this name."""

    code = "REF_NOT_FOUND"


class BadRef(InvalidInput):
    """The text cannot be the name of a branch, tag or commit."""

    code = "REF_INVALID"


class NoCommonCommit(Conflict):
    """Two branches have no commit in common, so nothing can be compared since it."""

    code = "NO_COMMON_COMMIT"


class BadFileName(InvalidInput):
    """The text cannot be the name of a file in the worktree."""

    code = "FILE_NAME_INVALID"


class BadCommitMessage(InvalidInput):
    """A commit needs a message, of at most 64 KiB."""

    code = "COMMIT_MESSAGE_INVALID"


class BadCommitId(InvalidInput):
    """The expected commit is not a whole hash."""

    code = "COMMIT_ID_INVALID"


class BadIdentity(InvalidInput):
    """The account's name or address cannot stand in a commit."""

    code = "IDENTITY_INVALID"


class NothingToCommit(Conflict):
    """There are no changes to commit."""

    code = "NOTHING_TO_COMMIT"


class GitLocked(Conflict):
    """Another git command works in the worktree, or one that was cut short left its lock."""

    code = "GIT_LOCKED"


class BranchMoved(Conflict):
    """The branch is not at the commit that was expected; look again before going on."""

    code = "BRANCH_MOVED"


class BranchMissing(NotFound):
    """The repository has no local branch of this name."""

    code = "BRANCH_NOT_FOUND"


class MergeConflicts(Conflict):
    """Files have conflicts that nobody has solved yet; `files` lists them."""

    code = "MERGE_CONFLICTS"


class OperationRunning(Conflict):
    """A merge, rebase, cherry-pick or revert has been begun in the worktree and not ended."""

    code = "OPERATION_IN_PROGRESS"


class NotOnBranch(Conflict):
    """The worktree is on a commit and on no branch."""

    code = "NOT_ON_BRANCH"


class CommitRefused(Conflict):
    """git or a hook of the repository refused the commit; the details say what they said."""

    code = "COMMIT_REFUSED"


class HooksTooSlow(Unavailable):
    """git with the repository's hooks did not end in time and was ended."""

    code = "GIT_TIMEOUT"


class BadRemote(InvalidInput):
    """Only `origin`, the environment's repository, can be pushed to."""

    code = "REMOTE_INVALID"


class PushRejected(Conflict):
    """The branch has other commits upstream; pull first."""

    code = "PUSH_REJECTED"


class PushNotAllowed(Forbidden):
    """The environment's push policy does not allow it."""

    code = "PUSH_NOT_ALLOWED"


class UpstreamRejected(Conflict):
    """The upstream refused the branch: a hook of its own, or a protected branch."""

    code = "UPSTREAM_REJECTED"


class UpstreamRefusesAccess(Conflict):
    """The upstream does not let this account do it, or does not have the repository any more."""

    code = "UPSTREAM_REFUSES_ACCESS"


class UpstreamUnavailable(Unavailable):
    """The upstream did not answer, or the connection to it broke."""

    code = "UPSTREAM_UNAVAILABLE"


class PushUnconfirmed(Unavailable):
    """The push was cut, or nothing told how it ended: the branch may have moved upstream."""

    code = "PUSH_UNCONFIRMED"


class PushNotSeen(Conflict):
    """git pushed somewhere else than to the environment's repository."""

    code = "PUSH_NOT_SEEN"


class PushHookRefused(Conflict):
    """git did not push: a hook of the repository refused, or git itself."""

    code = "PUSH_HOOK_REFUSED"


class GitAuthenticationRequired(InvalidInput):
    """The upstream wants an account with the right to this repository."""

    code = "GIT_AUTHENTICATION_REQUIRED"


class NoUpstream(Conflict):
    """There is no branch on the remote that this one could be brought up to date with."""

    code = "NO_UPSTREAM"


class PullDiverged(Conflict):
    """The branch and its upstream have commits of their own each."""

    code = "PULL_DIVERGED"


class PullConflict(Conflict):
    """The branch's commits do not fit on its upstream's; nothing was changed."""

    code = "PULL_CONFLICT"


class UncommittedChanges(Conflict):
    """Changes that are not committed would be overwritten; nothing was changed."""

    code = "UNCOMMITTED_CHANGES"


class GitBusy(Unavailable):
    """So many git commands run in the environment, or for the user, that there was no turn."""

    code = "GIT_BUSY"


class GitFailed(Conflict):
    """git ended with an error that has no name of its own; the details say what it said."""

    code = "GIT_FAILED"
