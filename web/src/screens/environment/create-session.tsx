import { Check, GitBranch, GitCommitHorizontal, GitPullRequest, LoaderCircle } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { useQueryClient } from '@tanstack/react-query';
import { gitKeys, useBranches, type Branch } from '@/api/git';
import { useCreateSession, useSessionBranch, useSessionName } from '@/api/queries';
import type { Environment, Session } from '@/api/types';
import { useDebounced } from '@/app/debounced';
import { Button } from '@/ui/button';
import { Dialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { RadioGroup } from '@/ui/toggles';
import { nameProblem } from '../environments/naming';
import { BranchField } from './branch-field';
import type { SessionWish } from './new-session';
import {
  branchOf,
  branchProblem,
  nameOf,
  problemsFrom,
  problemsOf,
  wanted,
  type FormField,
  type Problems,
  type SessionForm,
  type StartFrom,
} from './start-from';

const FORM_ID = 'new-session';
const CHECK_AFTER_MS = 300;

/** What the form begins with. Pure. */
export function firstForm(environment: Pick<Environment, 'branch'>, wish: SessionWish): SessionForm {
  const from: StartFrom =
    wish.branch !== undefined
      ? 'existing'
      : wish.commit !== undefined
        ? 'commit'
        : wish.pull !== undefined
          ? 'pull'
          : 'new';
  return {
    from,
    name: '',
    branch: '',
    base: environment.branch,
    existing: wish.branch ?? '',
    pull: wish.pull ?? '',
    commit: wish.commit ?? '',
  };
}

/** Makes a session: its name, and where its branch begins. */
export function CreateSession({
  environment,
  wish,
  onClose,
  onCreated,
}: {
  environment: Environment;
  wish: SessionWish;
  onClose: () => void;
  onCreated: (session: Session) => void;
}) {
  const withRepository = Boolean(environment.repositoryUrl);
  const [form, setForm] = useState(() => firstForm(environment, wish));
  const [tried, setTried] = useState(false);
  // What the server refused counts until the field is changed.
  const [changed, setChanged] = useState<ReadonlySet<FormField>>(new Set());
  const queries = useQueryClient();
  const create = useCreateSession();
  const taken = useTaken(form, environment.id, withRepository, create.isPending);
  const refused = problemsFrom(create.error, form.from);
  const own = problemsOf(form, withRepository);

  const problem = (field: FormField): string | undefined =>
    (tried ? own[field] : undefined) ??
    taken.problems[field] ??
    (changed.has(field) ? undefined : refused[field]);
  const change = (next: Partial<SessionForm>) => {
    setChanged(new Set([...changed, ...(Object.keys(next) as FormField[])]));
    setForm({ ...form, ...next });
  };
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (Object.keys(own).length > 0 || create.isPending) return;
    setChanged(new Set());
    create.mutate(wanted(form, environment.id, withRepository), {
      onError: () => void queries.invalidateQueries({ queryKey: ['check'] }),
      onSuccess: (session) => {
        void queries.invalidateQueries({ queryKey: gitKeys.branches(environment.id) });
        onCreated(session);
      },
    });
  };
  return (
    <Dialog
      open
      sticky={form.name !== '' || create.isPending}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="New session"
      description={
        withRepository
          ? `A terminal in a worktree of its own, in ${environment.name}.`
          : `A terminal in ${environment.name}.`
      }
      footer={
        <>
          {create.isPending && (
            <p role="status" className="mr-auto text-sm text-fg-2 max-md:w-full">
              {withRepository ? 'Making its worktree…' : 'Starting its terminal…'}
            </p>
          )}
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={create.isPending}>
            Create session
          </Button>
        </>
      }
    >
      <form id={FORM_ID} onSubmit={submit} noValidate className="flex flex-col gap-4">
        {create.error !== null && Object.keys(refused).length === 0 && <ErrorNote error={create.error} />}
        <NameField
          form={form}
          problem={problem('name')}
          taken={taken}
          onChange={(name) => change({ name })}
        />
        {withRepository && (
          <>
            <RadioGroup<StartFrom>
              label="Start from"
              value={form.from}
              onChange={(from) => change({ from })}
              className="grid grid-cols-2 gap-x-4 gap-y-2 rounded-md border border-line bg-sunken p-3 pointer-coarse:gap-y-0"
              options={[
                { value: 'new', label: 'New branch' },
                { value: 'existing', label: 'Existing branch' },
                { value: 'pull', label: 'Pull request' },
                { value: 'commit', label: 'Commit' },
              ]}
            />
            <StartFields form={form} environment={environment} problem={problem} onChange={change} />
            {form.from !== 'existing' && (
              <NewBranchField form={form} problem={problem('branch')} onChange={change} />
            )}
          </>
        )}
      </form>
    </Dialog>
  );
}

type Taken = { problems: Problems; checking: boolean; free: boolean };

/** Whether name and branch are free, asked when typing pauses. */
function useTaken(
  form: SessionForm,
  environmentId: string,
  withRepository: boolean,
  creating: boolean,
): Taken {
  const name = nameOf(form);
  const branch = branchOf(form);
  const settled = useDebounced(name, CHECK_AFTER_MS);
  const settledBranch = useDebounced(branch, CHECK_AFTER_MS);
  const nameCheck = useSessionName(
    environmentId,
    // While the session is being made, it is the one that has the name.
    creating || nameProblem(settled) !== undefined ? '' : settled,
  );
  const askBranch = !creating && withRepository && branchProblem(settledBranch) === undefined;
  const branchCheck = useSessionBranch(environmentId, askBranch ? settledBranch : '');
  const branches = useBranches(environmentId, withRepository && form.from !== 'existing');
  const problems: Problems = {};
  if (settled === name && nameCheck.data?.available === false) problems.name = nameCheck.data.message;
  if (settledBranch === branch && branchCheck.data?.available === false) {
    problems[form.from === 'existing' ? 'existing' : 'branch'] = branchCheck.data.message;
  } else if (form.from === 'new' && branches.data?.branches.some((one) => one.name === branch) === true) {
    problems.branch = 'There is a branch of this name. To go on with it, choose “Existing branch”.';
  }
  return {
    problems,
    checking: settled !== name || nameCheck.isFetching,
    free: settled === name && nameCheck.data?.available === true,
  };
}

function NameField({
  form,
  problem,
  taken,
  onChange,
}: {
  form: SessionForm;
  problem: string | undefined;
  taken: Taken;
  onChange: (name: string) => void;
}) {
  const given = nameOf({ ...form, name: '' });
  return (
    <Field
      label="Name"
      error={problem}
      hint={<NameHint named={nameOf(form) !== ''} checking={taken.checking} free={taken.free} />}
    >
      {(control) => (
        <Input
          {...control}
          autoFocus
          autoComplete="off"
          spellCheck={false}
          maxLength={80}
          placeholder={given === '' ? 'fix-cart-rounding' : given}
          value={form.name}
          onChange={(event) => onChange(event.target.value)}
        />
      )}
    </Field>
  );
}

function NameHint({ named, checking, free }: { named: boolean; checking: boolean; free: boolean }) {
  if (!named) return 'What you are going to work on.';
  if (checking) {
    return (
      <span className="flex items-center gap-1.5">
        <LoaderCircle aria-hidden className="size-3 animate-spin" /> Looking whether it is free…
      </span>
    );
  }
  if (!free) return 'What you are going to work on.';
  return (
    <span className="flex items-center gap-1.5 text-ok">
      <Check aria-hidden strokeWidth={3} className="size-3" /> The name is free.
    </span>
  );
}

type FieldsProps = {
  form: SessionForm;
  environment: Environment;
  problem: (field: FormField) => string | undefined;
  onChange: (next: Partial<SessionForm>) => void;
};

/** Why a branch cannot be gone on with. Pure. */
export function unfitBranch({ sessionId, current }: Branch): string | undefined {
  if (sessionId) return 'has a session';
  return current ? 'is checked out' : undefined;
}

function StartFields({ form, environment, problem, onChange }: FieldsProps) {
  switch (form.from) {
    case 'new':
      return (
        <BranchField
          key={form.from}
          environmentId={environment.id}
          label="Begins at"
          hint="The newest commit of this branch on the remote."
          error={problem('base')}
          value={form.base}
          onChange={(base) => onChange({ base })}
        />
      );
    case 'existing':
      return (
        <BranchField
          key={form.from}
          environmentId={environment.id}
          label="Branch"
          hint="Go on with it, here or from the remote."
          error={problem('existing')}
          value={form.existing}
          onChange={(existing) => onChange({ existing })}
          unfit={unfitBranch}
          openAtFirst={form.existing === ''}
        />
      );
    case 'pull':
      return (
        <Field
          label="Pull request"
          hint="Its number or address. Its setup is not run by itself: read it first, it is somebody else’s code."
          error={problem('pull')}
        >
          {(control) => (
            <Input
              {...control}
              icon={GitPullRequest}
              inputMode="url"
              autoComplete="off"
              placeholder="42"
              value={form.pull}
              onChange={(event) => onChange({ pull: event.target.value })}
            />
          )}
        </Field>
      );
    case 'commit':
      return (
        <Field label="Commit" hint="At least 7 digits of its id." error={problem('commit')}>
          {(control) => (
            <Input
              {...control}
              icon={GitCommitHorizontal}
              autoComplete="off"
              autoCapitalize="off"
              spellCheck={false}
              className="font-mono"
              placeholder="9fceb02"
              value={form.commit}
              onChange={(event) => onChange({ commit: event.target.value })}
            />
          )}
        </Field>
      );
  }
}

function NewBranchField({
  form,
  problem,
  onChange,
}: {
  form: SessionForm;
  problem: string | undefined;
  onChange: (next: Partial<SessionForm>) => void;
}) {
  const given = branchOf({ ...form, branch: '' });
  return (
    <Field label="New branch" hint="Follows the name unless you give another." error={problem}>
      {(control) => (
        <Input
          {...control}
          icon={GitBranch}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          className="font-mono"
          placeholder={given === '' ? 'fix-cart-rounding' : given}
          value={form.branch}
          onChange={(event) => onChange({ branch: event.target.value.trim() })}
        />
      )}
    </Field>
  );
}
