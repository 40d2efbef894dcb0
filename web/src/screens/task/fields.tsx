import { Bot, GitBranch, Link as LinkIcon } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { Link, useMatch } from 'react-router';
import { MAX_PROMPT, useAgents, useAgentTypes } from '@/api/agents';
import { useEnvironments } from '@/api/queries';
import type { ListedEnvironment } from '@/api/types';
import { environmentStatus } from '@/app/status';
import { Button } from '@/ui/button';
import { Collapsible } from '@/ui/collapsible';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input, Textarea } from '@/ui/input';
import { Notice } from '@/ui/notice';
import { Select, type Option } from '@/ui/select';
import { Segmented } from '@/ui/toggles';
import { enters, kindOf, typeOf } from '../agents/words';
import { BranchField } from '../environment/branch-field';
import { nameFromUrl, repositoryLabel, urlProblem } from '../environments/naming';
import { useRepositories } from '../environments/repositories';
import { RepositoryPicker } from '../environments/repository-picker';
import { submitOnEnter } from '../inbox/typing';
import { taskName, taskProblems, type Source, type TaskField, type TaskForm } from './words';

/** By which a button outside of the form sends it. */
export const FORM_ID = 'new-task';

/** The environment that the page is about now. */
function useHere(environments: readonly ListedEnvironment[]): string | undefined {
  const env = useMatch('/e/:env/*')?.params.env;
  const session = useMatch('/s/:session/*')?.params.session;
  return env ?? environments.find(({ sessions }) => sessions.some((one) => one.id === session))?.id;
}

function usable(environment: ListedEnvironment): boolean {
  return environmentStatus(environment).kind !== 'failed';
}

function firstForm(
  draft: string,
  environments: readonly ListedEnvironment[],
  wishes: readonly (string | undefined)[],
  agentId: string,
): TaskForm {
  const fit = environments.filter(usable);
  const wished = wishes.map((id) => fit.find((one) => one.id === id)).find((one) => one !== undefined);
  // One that is still being made would have to be waited for.
  const chosen = wished ?? fit.find((one) => environmentStatus(one).kind === 'ready') ?? fit[0];
  return {
    prompt: draft,
    source: chosen ? 'environment' : 'url',
    environmentId: chosen?.id ?? '',
    url: '',
    base: '',
    agentId,
    name: '',
    environmentName: '',
  };
}

/** What to do, where and by whom; what was not chosen follows what was used last. */
export function TaskFields({
  draft,
  onDraft,
  lastAgent,
  lastEnvironment,
  error,
  onStart,
}: {
  draft: string;
  onDraft: (text: string) => void;
  lastAgent: string;
  lastEnvironment: string;
  error: unknown;
  onStart: (form: TaskForm) => void;
}) {
  const list = useEnvironments().data;
  const agents = useAgents();
  const environments = list ?? [];
  const here = useHere(environments);
  const [changes, setChanges] = useState<Partial<TaskForm>>({});
  const [tried, setTried] = useState(false);
  // What was not chosen follows what is known, which may come later than the form.
  const usual = agents.data?.find((one) => one.id === lastAgent) ?? agents.data?.[0];
  const form: TaskForm = {
    ...firstForm(draft, environments, [here, lastEnvironment], usual?.id ?? ''),
    ...changes,
    prompt: draft,
  };
  const change = (next: Partial<TaskForm>) => setChanges({ ...changes, ...next });
  const problems = taskProblems(
    form,
    {
      agents: new Set(agents.data?.map((one) => one.id)),
      environments: new Set(environments.filter(usable).map((one) => one.id)),
    },
    urlProblem,
  );
  const problem = (field: TaskField) => (tried ? problems[field] : undefined);
  const start = () => {
    setTried(true);
    if (Object.keys(problems).length === 0) onStart(form);
  };
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    start();
  };
  return (
    <form id={FORM_ID} onSubmit={submit} noValidate className="flex flex-col gap-4">
      {error !== undefined && <ErrorNote error={error} />}
      <Field label="What should the agent do?" error={problem('prompt')}>
        {(control) => (
          <Textarea
            {...control}
            autoFocus
            rows={4}
            maxLength={MAX_PROMPT}
            enterKeyHint="go"
            placeholder="Round the total of the cart to cents, and add a test for it."
            className="max-h-[40dvh] field-sizing-content min-h-24"
            value={draft}
            onChange={(event) => onDraft(event.target.value)}
            onKeyDown={submitOnEnter(start)}
          />
        )}
      </Field>
      <WhereField form={form} environments={environments} problem={problem} onChange={change} />
      <AgentField form={form} problem={problem('agent')} onChange={change} />
      <Collapsible title="Names">
        <div className="flex flex-col gap-4">
          <Field label="Session" hint="The branch is called the same.">
            {(control) => (
              <Input
                {...control}
                autoComplete="off"
                spellCheck={false}
                maxLength={64}
                placeholder={taskName({ ...form, name: '' })}
                value={form.name}
                onChange={(event) => change({ name: event.target.value })}
              />
            )}
          </Field>
          {form.source !== 'environment' && (
            <Field label="Environment" hint="How you will find it.">
              {(control) => (
                <Input
                  {...control}
                  autoComplete="off"
                  spellCheck={false}
                  maxLength={64}
                  placeholder={nameFromUrl(form.url) || 'task'}
                  value={form.environmentName}
                  onChange={(event) => change({ environmentName: event.target.value })}
                />
              )}
            </Field>
          )}
        </div>
      </Collapsible>
    </form>
  );
}

function environmentOption(one: ListedEnvironment): Option<string> {
  const { kind, word } = environmentStatus(one);
  const where = one.repositoryUrl ? repositoryLabel(one.repositoryUrl) : 'no repository';
  return {
    value: one.id,
    label: one.name,
    note: kind === 'ready' ? where : `${where}, ${word.toLowerCase()}`,
    disabled: !usable(one),
  };
}

function WhereField({
  form,
  environments,
  problem,
  onChange,
}: {
  form: TaskForm;
  environments: readonly ListedEnvironment[];
  problem: (field: TaskField) => string | undefined;
  onChange: (next: Partial<TaskForm>) => void;
}) {
  const github = useRepositories('', false).state !== 'unavailable';
  const chosen = environments.find((one) => one.id === form.environmentId);
  return (
    <>
      <Segmented<Source>
        label="Where"
        value={form.source}
        onChange={(source) => onChange({ source, base: '' })}
        className="w-full"
        options={[
          ...(environments.length > 0 ? [{ value: 'environment' as const, label: 'Environment' }] : []),
          { value: 'url', label: 'Repository' },
          ...(github ? [{ value: 'github' as const, label: 'From GitHub' }] : []),
        ]}
      />
      {form.source === 'environment' && (
        <Field label="Environment" error={problem('environment')}>
          {(control) => (
            <Select
              {...control}
              value={form.environmentId === '' ? undefined : form.environmentId}
              onChange={(environmentId) => onChange({ environmentId, base: '' })}
              options={environments.map(environmentOption)}
            />
          )}
        </Field>
      )}
      {form.source === 'environment' && chosen?.repositoryUrl && (
        <BranchField
          key={chosen.id}
          environmentId={chosen.id}
          label="Begins at"
          hint="The newest commit of this branch on the remote. The agent works on a new one."
          value={form.base === '' ? chosen.branch : form.base}
          onChange={(base) => onChange({ base })}
        />
      )}
      {form.source === 'url' && (
        <Field
          label="Repository"
          hint="An environment is made for it. Private ones need a connected account or git host."
          error={problem('url')}
        >
          {(control) => (
            <Input
              {...control}
              icon={LinkIcon}
              type="url"
              inputMode="url"
              placeholder="https://github.com/owner/name"
              autoComplete="off"
              spellCheck={false}
              value={form.url}
              onChange={(event) => onChange({ url: event.target.value })}
            />
          )}
        </Field>
      )}
      {form.source === 'github' && (
        <div className="flex flex-col gap-1.5">
          <RepositoryPicker
            chosen={form.url}
            onChoose={(one) => onChange({ url: one.cloneUrl, base: one.defaultBranch })}
          />
          {problem('url') !== undefined && (
            <p role="alert" className="text-xs text-bad">
              Choose a repository.
            </p>
          )}
        </div>
      )}
      {form.source !== 'environment' && (
        <Field label="Begins at" hint="The agent works on a new branch.">
          {(control) => (
            <Input
              {...control}
              icon={GitBranch}
              placeholder="main"
              autoComplete="off"
              autoCapitalize="off"
              spellCheck={false}
              className="font-mono"
              value={form.base}
              onChange={(event) => onChange({ base: event.target.value.trim() })}
            />
          )}
        </Field>
      )}
    </>
  );
}

function AgentField({
  form,
  problem,
  onChange,
}: {
  form: TaskForm;
  problem: string | undefined;
  onChange: (next: Partial<TaskForm>) => void;
}) {
  const agents = useAgents();
  const types = useAgentTypes().data?.types ?? [];
  const chosen = agents.data?.find((one) => one.id === form.agentId);
  const kind = chosen && kindOf(chosen, types);
  if (agents.isError && agents.data === undefined) return <ErrorNote error={agents.error} />;
  if (agents.data?.length === 0) {
    return (
      <Notice>
        <p>
          You have no agent yet. It is made once, with an API key or a login of yours; what you wrote is kept.
        </p>
        <Button asChild className="mt-2">
          <Link to="/agents?new=agent">
            <Bot aria-hidden className="size-4" /> Make an agent
          </Link>
        </Button>
      </Notice>
    );
  }
  return (
    <Field
      label="Agent"
      error={problem}
      hint={
        chosen && !chosen.credential_type
          ? 'It has no credential: it will ask in its terminal.'
          : enters(kind) && kind
            ? kind.readableBy
            : undefined
      }
    >
      {(control) => (
        <Select
          {...control}
          value={form.agentId === '' ? undefined : form.agentId}
          onChange={(agentId) => onChange({ agentId })}
          placeholder={agents.isPending ? 'Loading…' : 'Choose…'}
          options={(agents.data ?? []).map((one) => ({
            value: one.id,
            label: one.name,
            note: typeOf(one, types)?.title ?? one.type,
          }))}
        />
      )}
    </Field>
  );
}
