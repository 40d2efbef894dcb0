import { ArrowRight, Check, GitBranch, Link as LinkIcon, LoaderCircle } from 'lucide-react';
import { useState, type SyntheticEvent, type ReactNode } from 'react';
import { useNavigate } from 'react-router';
import { ApiError } from '@/api/errors';
import {
  useCreateEnvironment,
  useEnvironmentName,
  useEnvironments,
  useRetryEnvironment,
} from '@/api/queries';
import type { Environment, NewEnvironment } from '@/api/types';
import { useDebounced } from '@/app/debounced';
import { Button } from '@/ui/button';
import { Dialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { Segmented } from '@/ui/toggles';
import { nameFromUrl, nameProblem, urlProblem } from './naming';
import { StartProgress } from './progress';
import { useRepositories } from './repositories';
import { RepositoryPicker } from './repository-picker';
import { isReady, startFailure } from './steps';

type Source = 'url' | 'github' | 'none';
type Form = { source: Source; url: string; branch: string; name: string; nameTouched: boolean };
type Problems = Partial<Record<'url' | 'branch' | 'name', string>>;

const EMPTY: Form = { source: 'url', url: '', branch: 'main', name: '', nameTouched: false };
const FORM_ID = 'new-environment';
const CHECK_AFTER_MS = 300;

/** Which field the server's refusal is about. Pure. */
export function problemsFrom(error: unknown): Problems {
  if (!(error instanceof ApiError)) return {};
  const text = [error.message, error.details].filter((part) => part !== undefined).join(' ');
  if (/^(?:REPOSITORY_URL_INVALID|UPSTREAM_)/u.test(error.code)) return { url: text };
  if (error.code === 'BRANCH_NAME_INVALID') return { branch: text };
  if (error.code === 'NAME_INVALID' || error.code === 'ENVIRONMENT_NAME_IN_USE') return { name: text };
  return {};
}

function problemsOf(form: Form): Problems {
  const problems: Problems = {};
  const name = nameProblem(form.name);
  if (name !== undefined) problems.name = name;
  if (form.source === 'none') return problems;
  const url = urlProblem(form.url);
  if (url !== undefined) problems.url = url;
  return problems;
}

function wanted({ source, url, branch, name }: Form): NewEnvironment {
  if (source === 'none') return { name };
  return { name, repositoryUrl: url.trim(), branch: branch.trim() || 'main' };
}

/** Makes an environment: asks, then shows how far it is. Closing it meanwhile lets the work go on. */
export default function CreateEnvironment({ onClose }: { onClose: () => void }) {
  const [form, setForm] = useState<Form>(EMPTY);
  const [sent, setSent] = useState(false);
  const create = useCreateEnvironment();
  const refused = create.error !== null && problemsFrom(create.error);
  const showForm = !sent || create.isError;

  const submit = () => {
    setSent(true);
    create.mutate(wanted(form), { onError: () => setSent(false) });
  };
  return (
    <Dialog
      open
      sticky={form.url !== '' || form.name !== ''}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={showForm ? 'New environment' : `Creating ${form.name}`}
      description={showForm ? 'A sandbox of its own, with a repository in it or without.' : undefined}
      footer={
        showForm ? (
          <>
            <Button onClick={onClose}>Cancel</Button>
            <Button type="submit" form={FORM_ID} variant="primary" busy={create.isPending}>
              Create environment
            </Button>
          </>
        ) : (
          <ProgressFooter name={form.name} created={create.data} onClose={onClose} />
        )
      }
    >
      {showForm ? (
        <CreateForm
          form={form}
          onChange={setForm}
          onSubmit={submit}
          refused={refused === false ? {} : refused}
          error={create.error}
        />
      ) : (
        <CreateProgress name={form.name} created={create.data} withRepository={form.source !== 'none'} />
      )}
    </Dialog>
  );
}

function CreateForm({
  form,
  onChange,
  onSubmit,
  refused,
  error,
}: {
  form: Form;
  onChange: (form: Form) => void;
  onSubmit: () => void;
  refused: Problems;
  error: Error | null;
}) {
  const [tried, setTried] = useState(false);
  // What the server refused counts until the field is changed.
  const [changed, setChanged] = useState<ReadonlySet<string>>(new Set());
  const [seenError, setSeenError] = useState(error);
  if (error !== seenError) {
    setSeenError(error);
    setChanged(new Set());
  }
  const own = tried ? problemsOf(form) : {};
  const problem = (field: keyof Problems) => own[field] ?? (changed.has(field) ? undefined : refused[field]);
  const change = (field: keyof Problems, next: Partial<Form>) => {
    setChanged(new Set([...changed, field]));
    onChange({ ...form, ...next });
  };
  const takeUrl = (url: string, more: Partial<Form> = {}) =>
    change('url', { url, ...(form.nameTouched ? {} : { name: nameFromUrl(url) }), ...more });
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (Object.keys(problemsOf(form)).length === 0) onSubmit();
  };
  return (
    <form id={FORM_ID} onSubmit={submit} noValidate className="flex flex-col gap-4">
      {error !== null && Object.keys(refused).length === 0 && <ErrorNote error={error} />}
      <SourceChoice source={form.source} onChange={(source) => onChange({ ...form, source })} />
      {form.source === 'url' && (
        <Field
          label="Repository"
          hint="https:// or git@ of a known host. Private ones need a connected account or git host."
          error={problem('url')}
        >
          {(control) => (
            <Input
              {...control}
              autoFocus
              icon={LinkIcon}
              type="url"
              inputMode="url"
              placeholder="https://github.com/owner/name"
              autoComplete="off"
              spellCheck={false}
              value={form.url}
              onChange={(event) => takeUrl(event.target.value)}
            />
          )}
        </Field>
      )}
      {form.source === 'github' && (
        <RepositoryPicker
          chosen={form.url}
          onChoose={(one) => takeUrl(one.cloneUrl, { branch: one.defaultBranch })}
        />
      )}
      {form.source !== 'none' && (
        <Field label="Base branch" hint="Where new branches begin." error={problem('branch')}>
          {(control) => (
            <Input
              {...control}
              icon={GitBranch}
              placeholder="main"
              autoComplete="off"
              autoCapitalize="off"
              spellCheck={false}
              className="font-mono"
              value={form.branch}
              onChange={(event) => change('branch', { branch: event.target.value })}
            />
          )}
        </Field>
      )}
      <NameField
        name={form.name}
        problem={problem('name')}
        suggested={suggestionsOf(error)}
        onChange={(name) => change('name', { name, nameTouched: name !== '' })}
      />
    </form>
  );
}

function SourceChoice({ source, onChange }: { source: Source; onChange: (source: Source) => void }) {
  const github = useRepositories('', false).state !== 'unavailable';
  return (
    <Segmented
      label="What is in it"
      value={source}
      onChange={onChange}
      className="w-full"
      options={[
        { value: 'url', label: 'Repository' },
        ...(github ? [{ value: 'github' as const, label: 'From GitHub' }] : []),
        { value: 'none', label: 'Empty' },
      ]}
    />
  );
}

/** The names that a refusal offers. */
function suggestionsOf(error: Error | null): string[] {
  const offered = error instanceof ApiError ? error.body.suggestions : undefined;
  return Array.isArray(offered) ? offered.filter((one) => typeof one === 'string').slice(0, 3) : [];
}

function NameField({
  name,
  problem,
  suggested,
  onChange,
}: {
  name: string;
  problem: string | undefined;
  suggested: readonly string[];
  onChange: (name: string) => void;
}) {
  const settled = useDebounced(name, CHECK_AFTER_MS);
  const askable = nameProblem(settled) === undefined ? settled : '';
  const check = useEnvironmentName(askable);
  const current = askable === name && name !== '';
  const answer = current ? check.data : undefined;
  const taken = answer?.available === false;
  const offers = answer && taken ? answer.suggestions : problem === undefined ? [] : suggested;
  return (
    <div className="flex flex-col gap-2">
      <Field
        label="Name"
        error={problem ?? (taken ? 'You have an environment of that name.' : undefined)}
        hint={
          <NameHint
            name={name}
            checking={!current || check.isFetching}
            free={check.data?.available === true}
          />
        }
      >
        {(control) => (
          <Input
            {...control}
            placeholder="my-project"
            autoComplete="off"
            spellCheck={false}
            maxLength={80}
            value={name}
            onChange={(event) => onChange(event.target.value)}
          />
        )}
      </Field>
      {offers.length > 0 && (
        <div className="flex flex-wrap items-center gap-1.5 text-xs text-fg-3">
          Free instead:
          {offers.map((offer) => (
            <Button key={offer} size="sm" onClick={() => onChange(offer)}>
              {offer}
            </Button>
          ))}
        </div>
      )}
    </div>
  );
}

function NameHint({ name, checking, free }: { name: string; checking: boolean; free: boolean }): ReactNode {
  if (name === '') return 'How you will find it.';
  if (checking) {
    return (
      <span className="flex items-center gap-1.5">
        <LoaderCircle aria-hidden className="size-3 animate-spin" /> Looking whether it is free…
      </span>
    );
  }
  if (!free) return 'How you will find it.';
  return (
    <span className="flex items-center gap-1.5 text-ok">
      <Check aria-hidden strokeWidth={3} className="size-3" /> The name is free.
    </span>
  );
}

/** The environment as the list has it, while the server still works on the answer. */
function useGrowing(name: string, created: Environment | undefined): Environment | undefined {
  const { data } = useEnvironments();
  const listed = data?.find((one) => (created ? one.id === created.id : one.name === name));
  return listed ?? created;
}

function CreateProgress({
  name,
  created,
  withRepository,
}: {
  name: string;
  created: Environment | undefined;
  withRepository: boolean;
}) {
  const environment = useGrowing(name, created);
  const retry = useRetryEnvironment();
  return (
    <div className="pt-1">
      <StartProgress
        environment={environment}
        withRepository={withRepository}
        retrying={retry.isPending}
        onRetry={environment ? () => retry.mutate(environment.id) : undefined}
      />
      {retry.isError && <ErrorNote error={retry.error} />}
    </div>
  );
}

function ProgressFooter({
  name,
  created,
  onClose,
}: {
  name: string;
  created: Environment | undefined;
  onClose: () => void;
}) {
  const navigate = useNavigate();
  const environment = useGrowing(name, created);
  const ready = environment !== undefined && isReady(environment);
  const failed = environment !== undefined && startFailure(environment) !== undefined;
  return (
    <>
      <p role="status" className="mr-auto text-sm text-fg-2 max-md:w-full">
        {ready
          ? 'Ready.'
          : failed
            ? 'It stays in your list as it is.'
            : 'You may close this; the work goes on.'}
      </p>
      <Button onClick={onClose}>Close</Button>
      {environment && (
        <Button
          variant={ready ? 'primary' : 'secondary'}
          onClick={() => void navigate(`/e/${environment.id}`)}
        >
          Open <ArrowRight aria-hidden className="size-4" />
        </Button>
      )}
    </>
  );
}
