import { Compass, Trash2 } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import {
  useAgents,
  useAgentTypes,
  useDeleteAgent,
  useUpdateAgent,
  type Agent,
  type AgentType,
} from '@/api/agents';
import { Section } from '@/app/page';
import { Button } from '@/ui/button';
import { ConfirmDialog } from '@/ui/dialog';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { Card } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { toast } from '@/ui/toast';
import { SettingsPage } from '../settings/frame';
import { KindField } from './create';
import { CredentialBadge } from './credential-badge';
import { AddressField, CredentialField, DeliveryNote, MissingNote, ModelField } from './fields';
import { TestCredential } from './test';
import {
  agentNameProblem,
  baseUrlProblem,
  credentialProblem,
  credentialValue,
  kindOf,
  typeOf,
} from './words';

export function Component() {
  const { agent: id = '' } = useParams();
  const agents = useAgents();
  const types = useAgentTypes();
  const agent = agents.data?.find((one) => one.id === id);
  if (agent) return <AgentScreen key={id} agent={agent} types={types.data?.types ?? []} />;
  return (
    <SettingsPage title="Agent">
      {agents.isPending && <SkeletonRows rows={3} label="Loading the agent" />}
      {agents.isError && agents.data === undefined && (
        <ErrorState
          title="Your agents could not be read"
          error={agents.error}
          busy={agents.isFetching}
          onRetry={() => void agents.refetch()}
        />
      )}
      {agents.data !== undefined && (
        <EmptyState
          icon={Compass}
          title="This agent is not there"
          action={
            <Button asChild variant="primary">
              <Link to="/agents">All agents</Link>
            </Button>
          }
        >
          It may have been deleted, or the link is wrong.
        </EmptyState>
      )}
    </SettingsPage>
  );
}

function AgentScreen({ agent, types }: { agent: Agent; types: readonly AgentType[] }) {
  const type = typeOf(agent, types);
  const [deleting, setDeleting] = useState(false);
  const navigate = useNavigate();
  return (
    <SettingsPage title={agent.name} crumbs={[{ label: 'Agents', to: '/agents' }]}>
      {type && <MissingNote type={type} className="mb-6" />}
      <Section title="Credential">
        <Credential agent={agent} type={type} types={types} />
      </Section>
      <Section title="Profile">
        {/* Another state of the agent, by another tab or a command, begins the form anew. */}
        <Profile
          key={agent.updated_at}
          agent={agent}
          program={type?.title ?? `${agent.type}, unknown to this server`}
        />
      </Section>
      <Section title="Delete">
        <Card className="flex flex-wrap items-center gap-3 p-4 text-sm">
          <p className="min-w-0 flex-1 text-fg-2">
            Its credential is deleted with it. Sessions stay as they are.
          </p>
          <Button variant="danger-ghost" icon={Trash2} onClick={() => setDeleting(true)}>
            Delete agent…
          </Button>
        </Card>
      </Section>
      {deleting && (
        <DeleteAgent
          agent={agent}
          onClose={() => setDeleting(false)}
          onDeleted={() => void navigate('/agents', { replace: true })}
        />
      )}
    </SettingsPage>
  );
}

function Credential({
  agent,
  type,
  types,
}: {
  agent: Agent;
  type: AgentType | undefined;
  types: readonly AgentType[];
}) {
  const [replacing, setReplacing] = useState(false);
  const kind = kindOf(agent, types);
  const has = Boolean(agent.credential_type);
  return (
    <Card className="flex flex-col gap-4 p-4">
      <div className="flex flex-wrap items-center gap-2">
        <CredentialBadge agent={agent} types={types} />
        {agent.base_url && <span className="text-sm wrap-anywhere text-fg-2">used at {agent.base_url}</span>}
      </div>
      {kind && <DeliveryNote kind={kind} />}
      {replacing && type ? (
        <ReplaceCredential agent={agent} type={type} onClose={() => setReplacing(false)} />
      ) : (
        <div className="flex flex-wrap items-start gap-2">
          {has && <TestCredential key={agent.updated_at} agent={agent} />}
          {type && type.credentials.length > 0 && (
            <Button variant={has ? 'secondary' : 'primary'} onClick={() => setReplacing(true)}>
              {has ? 'Replace' : 'Give it a credential'}
            </Button>
          )}
        </div>
      )}
    </Card>
  );
}

function ReplaceCredential({ agent, type, onClose }: { agent: Agent; type: AgentType; onClose: () => void }) {
  const [chosen, setChosen] = useState(agent.credential_type ?? type.credentials[0]?.type ?? '');
  const [value, setValue] = useState('');
  const [baseUrl, setBaseUrl] = useState(agent.base_url ?? '');
  const [tried, setTried] = useState(false);
  const update = useUpdateAgent(agent.id);
  const kind = type.credentials.find((one) => one.type === chosen) ?? type.credentials[0];
  if (!kind) return null;
  const problem = credentialProblem(value, kind);
  const addressProblem = kind.takesBaseUrl ? baseUrlProblem(baseUrl) : undefined;
  const address = kind.takesBaseUrl ? baseUrl.trim() : '';
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (problem !== undefined || addressProblem !== undefined || update.isPending) return;
    update.mutate(
      {
        credential: { type: kind.type, value: credentialValue(value, kind) },
        ...(address === (agent.base_url ?? '') ? {} : { baseUrl: address === '' ? null : address }),
      },
      {
        onSuccess: () => {
          toast.ok(`${agent.name} has a new credential`, {
            description: 'Sessions that run keep the old one.',
          });
          onClose();
        },
      },
    );
  };
  return (
    <form onSubmit={submit} noValidate autoComplete="off" className="flex flex-col gap-4">
      {update.isError && <ErrorNote error={update.error} />}
      <KindField
        type={type}
        kind={kind.type}
        optional={false}
        onChange={(next) => {
          setChosen(next);
          setValue('');
        }}
      />
      {kind.type !== agent.credential_type && <DeliveryNote kind={kind} />}
      <CredentialField
        key={kind.type}
        kind={kind}
        value={value}
        onChange={setValue}
        error={tried ? problem : undefined}
      />
      {kind.takesBaseUrl && <AddressField baseUrl={baseUrl} problem={addressProblem} onChange={setBaseUrl} />}
      <div className="flex gap-2">
        <Button type="submit" variant="primary" busy={update.isPending}>
          Save the credential
        </Button>
        <Button onClick={onClose}>Cancel</Button>
      </div>
    </form>
  );
}

function Profile({ agent, program }: { agent: Agent; program: string }) {
  const [name, setName] = useState(agent.name);
  const [model, setModel] = useState(agent.model ?? '');
  const update = useUpdateAgent(agent.id);
  const problem = agentNameProblem(name);
  const changes = {
    ...(name.trim() === agent.name ? {} : { name: name.trim() }),
    ...(model.trim() === (agent.model ?? '') ? {} : { model: model.trim() === '' ? null : model.trim() }),
  };
  const changed = Object.keys(changes).length > 0;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    if (!changed || problem !== undefined || update.isPending) return;
    update.mutate(changes, { onSuccess: () => toast.ok('Saved') });
  };
  return (
    <Card className="p-4">
      <form onSubmit={submit} noValidate className="flex flex-col gap-4">
        {update.isError && <ErrorNote error={update.error} />}
        <p className="text-sm text-fg-2">Program: {program}</p>
        <Field label="Name" error={problem}>
          {(control) => (
            <Input
              {...control}
              autoComplete="off"
              maxLength={255}
              value={name}
              onChange={(event) => setName(event.target.value)}
            />
          )}
        </Field>
        <ModelField model={model} onChange={setModel} />
        <Button
          type="submit"
          variant="primary"
          busy={update.isPending}
          disabled={!changed}
          className="self-start"
        >
          Save
        </Button>
      </form>
    </Card>
  );
}

function DeleteAgent({
  agent,
  onClose,
  onDeleted,
}: {
  agent: Agent;
  onClose: () => void;
  onDeleted: () => void;
}) {
  const remove = useDeleteAgent();
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Delete ${agent.name}?`}
      action="Delete agent"
      busy={remove.isPending}
      // A promise and no callback: the list without it takes the page from under this dialog.
      onConfirm={() =>
        void remove.mutateAsync(agent.id).then(
          () => {
            toast.ok(`${agent.name} is deleted`);
            onDeleted();
          },
          () => undefined,
        )
      }
    >
      <p>
        Its credential is deleted here, and cannot be brought back; at the provider it lives on until you take
        it back there. Sessions that it works in lose their way to the model.
      </p>
      {remove.isError && <ErrorNote error={remove.error} />}
    </ConfirmDialog>
  );
}
