import { Trash2 } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { useNavigate } from 'react-router';
import { useUpdateEnvironment, type PushPolicy } from '@/api/environment';
import { ApiError } from '@/api/errors';
import { useEnvironmentName } from '@/api/queries';
import type { Environment } from '@/api/types';
import { useDebounced } from '@/app/debounced';
import { Section } from '@/app/page';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { Card } from '@/ui/list';
import { toast } from '@/ui/toast';
import { RadioGroup, type RadioOption } from '@/ui/toggles';
import { DeleteEnvironment } from '../environments/delete';
import { nameProblem } from '../environments/naming';
import { VariablesEditor } from '../settings/variables-editor';
import { IdleForm } from './idle';
import { UnsavedWork } from './unsaved';

const CHECK_AFTER_MS = 300;

export function SettingsTab({ environment, ready }: { environment: Environment; ready: boolean }) {
  return (
    <div className="max-w-3xl">
      <Section title="General">
        <NameForm key={environment.name} environment={environment} />
      </Section>
      {environment.repositoryUrl && (
        <Section title="What may be pushed">
          <PushPolicyForm environment={environment} />
        </Section>
      )}
      <Section title="When nobody uses it">
        <IdleForm environment={environment} />
      </Section>
      <Section title="Variables and secrets">
        <p className="mb-3 text-sm text-fg-2">
          In the shells of this environment’s sessions, as environment variables. They replace those of all
          environments that have the same name.
        </p>
        <VariablesEditor environmentId={environment.id} />
      </Section>
      <DangerZone environment={environment} ready={ready} />
    </div>
  );
}

function NameForm({ environment }: { environment: Environment }) {
  const [name, setName] = useState(environment.name);
  const update = useUpdateEnvironment(environment.id);
  const settled = useDebounced(name, CHECK_AFTER_MS);
  const unchanged = name === environment.name;
  const askable = settled !== environment.name && nameProblem(settled) === undefined ? settled : '';
  const check = useEnvironmentName(askable);
  const taken = !unchanged && settled === name && check.data?.available === false;
  const inUse = update.error instanceof ApiError && update.error.code === 'ENVIRONMENT_NAME_IN_USE';
  const problem = nameProblem(name) ?? (taken || inUse ? 'You have an environment of that name.' : undefined);
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    if (unchanged || problem !== undefined || update.isPending) return;
    update.mutate({ name }, { onSuccess: () => toast.ok(`It is called ${name} now`) });
  };
  return (
    <form onSubmit={submit} noValidate className="flex flex-col gap-2">
      {update.isError && !inUse && <ErrorNote error={update.error} />}
      <div className="flex items-start gap-2">
        <Field label="Name" error={problem} className="flex-1">
          {(control) => (
            <Input
              {...control}
              autoComplete="off"
              spellCheck={false}
              maxLength={80}
              value={name}
              onChange={(event) => {
                setName(event.target.value);
                update.reset();
              }}
            />
          )}
        </Field>
        <Button
          type="submit"
          size="md"
          className="mt-[26px] h-9 pointer-coarse:h-11"
          disabled={unchanged}
          busy={update.isPending}
        >
          Rename
        </Button>
      </div>
    </form>
  );
}

const POLICIES: readonly RadioOption<PushPolicy>[] = [
  {
    value: 'sessions',
    label: 'The branches of its sessions, and new ones',
    hint: 'Work gets out, and nothing in here can touch your other branches, tags or releases.',
  },
  {
    value: 'any',
    label: 'Everything',
    hint: 'All branches and tags, deleting them too: what your account at the git server may do.',
  },
  { value: 'none', label: 'Nothing', hint: 'Every push from this environment is refused.' },
];

function PushPolicyForm({ environment }: { environment: Environment }) {
  const update = useUpdateEnvironment(environment.id);
  const wanted = update.isPending ? update.variables.pushPolicy : undefined;
  const shown = wanted ?? environment.pushPolicy;
  return (
    <Card className="flex flex-col gap-3 p-4">
      <p className="text-sm text-fg-2">
        Holds for every push from the sandbox: by you, by scripts and by agents. It is decided outside of the
        sandbox, from the next push on.
      </p>
      <RadioGroup<PushPolicy>
        label="What may be pushed"
        value={shown as PushPolicy}
        onChange={(pushPolicy) =>
          update.mutate({ pushPolicy }, { onSuccess: () => toast.ok('The push policy is changed') })
        }
        options={POLICIES}
        className="gap-3"
      />
      {update.isError && <ErrorNote error={update.error} />}
    </Card>
  );
}

function DangerZone({ environment, ready }: { environment: Environment; ready: boolean }) {
  const [deleting, setDeleting] = useState(false);
  const navigate = useNavigate();
  return (
    <Section title="Danger zone">
      <div className="flex flex-col gap-3 rounded-lg border border-bad/40 p-4 text-sm text-fg-2">
        <UnsavedWork environmentId={environment.id} enabled={ready && Boolean(environment.repositoryUrl)} />
        <div className="flex flex-wrap items-center gap-3">
          <p className="min-w-0 flex-1 basis-64">
            Deletes the sandbox with its sessions and everything in them. What was not pushed is lost.
          </p>
          <Button variant="danger-ghost" icon={Trash2} onClick={() => setDeleting(true)}>
            Delete environment…
          </Button>
        </div>
      </div>
      {deleting && (
        <DeleteEnvironment
          environment={environment}
          onClose={() => setDeleting(false)}
          onDeleted={() => void navigate('/envs')}
        >
          <UnsavedWork environmentId={environment.id} enabled={ready && Boolean(environment.repositoryUrl)} />
        </DeleteEnvironment>
      )}
    </Section>
  );
}
