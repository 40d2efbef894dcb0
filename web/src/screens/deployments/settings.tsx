import {
  CircleCheck,
  CircleHelp,
  CircleX,
  ExternalLink,
  RefreshCw,
  Rocket,
  TriangleAlert,
  Unplug,
} from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import {
  useCheckCoolify,
  useConnectCoolify,
  useCoolifyConnection,
  useDisconnectCoolify,
  type CoolifyConnection,
} from '@/api/coolify';
import { ApiError, sentence } from '@/api/errors';
import { useIsAdmin } from '@/api/queries';
import { Section } from '@/app/page';
import { webAddress } from '@/terminal/text';
import { Button } from '@/ui/button';
import { Collapsible } from '@/ui/collapsible';
import { ConfirmDialog, Dialog } from '@/ui/dialog';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input, PasswordInput } from '@/ui/input';
import { Card } from '@/ui/list';
import { Notice } from '@/ui/notice';
import { SkeletonRows } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { SettingsPage } from '../settings/frame';
import { WebhookSection } from './webhook';
import { abilityRows, type AbilityRow } from './words';

const FORM_ID = 'coolify';

export function CoolifySettings() {
  const connection = useCoolifyConnection();
  return (
    <SettingsPage
      title="Deployments"
      lead="With your Coolify connected, what is pushed can be deployed from a session, watched while it builds, and rolled back. Its token stays on the server and never enters a sandbox."
    >
      {connection.isPending && <SkeletonRows rows={3} label="Loading the connection to Coolify" />}
      {connection.isError && connection.data === undefined && (
        <ErrorState
          title="The connection to Coolify could not be read"
          error={connection.error}
          busy={connection.isFetching}
          onRetry={() => void connection.refetch()}
        />
      )}
      {connection.data && <Connection connection={connection.data} />}
    </SettingsPage>
  );
}

function Connection({ connection }: { connection: CoolifyConnection }) {
  const isAdmin = useIsAdmin();
  const connect = useConnectCoolify();
  if (!connection.configured) {
    return (
      <Section title="Connect Coolify">
        <Card className="p-5">
          <ConnectForm connect={connect} />
        </Card>
      </Section>
    );
  }
  return (
    <>
      <Connected connection={connection} />
      {connection.source === 'user' && <WebhookSection of="hook" hook={connection.hook} />}
      {connection.serverConfigured && isAdmin && <WebhookSection of="server-hook" hook={undefined} />}
    </>
  );
}

function Connected({ connection }: { connection: CoolifyConnection }) {
  const [replacing, setReplacing] = useState(false);
  const check = useCheckCoolify();
  const { source, url, version, abilities, problem, advice, checkedAt, serverConfigured } = connection;
  const address = url === null ? null : webAddress(url);
  const own = source === 'user';
  return (
    <Section title="Connection">
      {!own && (
        <Notice className="mb-3">
          This server has a Coolify for everybody on it, and your deployments go there. A connection of your
          own would be used in its place.
        </Notice>
      )}
      <Card className="divide-y divide-line">
        <div className="flex flex-wrap items-center gap-3 p-4">
          <div className="min-w-0 flex-1 basis-56">
            <p className="truncate text-base font-semibold">
              {address === null ? (
                (url ?? 'Coolify')
              ) : (
                <a
                  href={address}
                  target="_blank"
                  rel="noopener noreferrer"
                  className="inline-flex max-w-full items-center gap-1.5 rounded-sm hover:underline"
                >
                  <span className="truncate">{url}</span>
                  <ExternalLink aria-label="(opens in a new tab)" className="size-3.5 shrink-0 text-fg-3" />
                </a>
              )}
            </p>
            <p className="mt-0.5 flex flex-wrap items-center gap-x-3 text-sm text-fg-3">
              <State connection={connection} />
              {version !== null && <span>Coolify {version}</span>}
              {checkedAt !== null && (
                <span>
                  Checked <Ago at={checkedAt} />
                </span>
              )}
            </p>
          </div>
          <Button icon={RefreshCw} busy={check.isPending} onClick={() => check.mutate(undefined)}>
            Check again
          </Button>
        </div>
        {(check.isError || problem !== null || advice !== null) && (
          <div className="flex flex-col gap-3 p-4">
            {check.isError && <ErrorNote error={check.error} />}
            {problem !== null && (
              <p role="alert" className="flex items-start gap-2.5 text-sm">
                <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0 text-warn" />
                <span className="min-w-0 wrap-anywhere">{problem.message}</span>
              </p>
            )}
            {problem === null && advice !== null && <Notice>{advice}</Notice>}
          </div>
        )}
        {abilities !== null && <Abilities rows={abilityRows(abilities)} />}
        <div className="flex flex-wrap gap-2 p-4">
          <Button
            variant={own && problem !== null ? 'primary' : 'secondary'}
            onClick={() => setReplacing(true)}
          >
            {own ? 'Replace the token…' : 'Use your own…'}
          </Button>
          {own && <Disconnect url={url ?? 'Coolify'} serverConfigured={serverConfigured} />}
        </div>
      </Card>
      {replacing && (
        <ReplaceDialog url={own ? (url ?? '') : ''} own={own} onClose={() => setReplacing(false)} />
      )}
    </Section>
  );
}

function State({ connection: { problem, abilities } }: { connection: CoolifyConnection }) {
  if (problem !== null) return <Status kind="attention" word="Does not work yet" />;
  if (abilities === null) return <Status kind="unknown" word="Not checked yet" />;
  return <Status kind="ready" word="Connected" />;
}

const MARKS = {
  yes: { icon: CircleCheck, look: 'text-ok', word: 'granted' },
  no: { icon: CircleX, look: 'text-bad', word: 'missing' },
  unknown: { icon: CircleHelp, look: 'text-fg-3', word: 'not known' },
};

/** Each ability of the token, and what it is good for. */
function Abilities({ rows }: { rows: readonly AbilityRow[] }) {
  return (
    <ul aria-label="What the token may do" className="flex flex-col gap-2.5 p-4 text-sm">
      {rows.map(({ id, name, state, text }) => {
        const { icon: Icon, look, word } = MARKS[state];
        return (
          <li key={id} className="flex items-start gap-2.5">
            <Icon aria-hidden className={`mt-0.5 size-4 shrink-0 ${look}`} />
            <span className="min-w-0">
              <span className="font-mono text-xs font-medium">{name}</span>{' '}
              <span className="text-fg-3">({word})</span>
              <span className="block text-fg-2">{text}</span>
            </span>
          </li>
        );
      })}
    </ul>
  );
}

/** How to come to a token that is enough. */
function HowTo() {
  return (
    <Collapsible title="How to make the token">
      <ol className="ml-5 flex list-decimal flex-col gap-1 text-sm text-fg-2">
        <li>In Coolify, choose the team whose applications you deploy, and be its admin or owner.</li>
        <li>
          Under Settings, Advanced, the API has to be on. If it names allowed addresses, this server’s has to
          be one.
        </li>
        <li>
          Under Keys &amp; Tokens, API Tokens: tick <Mono>deploy</Mono> first. Ticking it takes away every
          other tick.
        </li>
        <li>
          Then tick <Mono>read</Mono> and <Mono>read:sensitive</Mono>. Without the last one all works but the
          build logs.
        </li>
        <li>Create it, and copy all of it, with the number and the bar in front.</li>
      </ol>
    </Collapsible>
  );
}

function Mono({ children }: { children: string }) {
  return <code className="rounded-sm bg-sunken px-1 py-0.5 font-mono text-xs">{children}</code>;
}

type About = 'url' | 'token' | undefined;

/** Which field an error is about. */
function aboutOf(error: unknown): About {
  if (!(error instanceof ApiError)) return undefined;
  if (error.code === 'COOLIFY_URL_INVALID') return 'url';
  return ['COOLIFY_TOKEN_REJECTED', 'COOLIFY_TOKEN_INVALID'].includes(error.code) ? 'token' : undefined;
}

function ConnectForm({
  connect,
  initialUrl = '',
  own = false,
  inDialog = false,
  onDone,
}: {
  connect: ReturnType<typeof useConnectCoolify>;
  initialUrl?: string;
  own?: boolean;
  inDialog?: boolean;
  onDone?: (() => void) | undefined;
}) {
  const [url, setUrl] = useState(initialUrl);
  const [token, setToken] = useState('');
  const [tried, setTried] = useState(false);
  const about = aboutOf(connect.error);
  const said = connect.error instanceof ApiError ? connect.error : undefined;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (url.trim() === '' || token.trim() === '' || connect.isPending) return;
    connect.mutate(
      { url: url.trim(), token: token.trim() },
      {
        onSuccess: ({ problem, url: saved }) => {
          setToken('');
          if (problem === null) toast.ok(`${saved ?? 'Coolify'} is connected`);
          onDone?.();
        },
      },
    );
  };
  const words = said && [sentence(said.message), said.details].filter(Boolean).join(' ');
  return (
    <form
      id={inDialog ? FORM_ID : undefined}
      onSubmit={submit}
      noValidate
      autoComplete="off"
      className="flex flex-col gap-4"
    >
      {connect.isError && about === undefined && <ErrorNote error={connect.error} />}
      <Field
        label="Address"
        hint="As in the browser’s address bar, with or without /api/v1."
        error={about === 'url' ? words : tried && url.trim() === '' ? 'Where is your Coolify?' : undefined}
      >
        {(control) => (
          <Input
            {...control}
            type="url"
            inputMode="url"
            placeholder="https://coolify.example.com"
            autoComplete="off"
            spellCheck={false}
            autoFocus={inDialog && !own}
            value={url}
            onChange={(event) => setUrl(event.target.value)}
          />
        )}
      </Field>
      <Field
        label="API token"
        hint="Kept on the server and never shown again."
        error={about === 'token' ? words : tried && token.trim() === '' ? 'It needs a token.' : undefined}
      >
        {(control) => (
          <PasswordInput
            {...control}
            autoComplete="new-password"
            autoFocus={inDialog && own}
            placeholder="7|…"
            value={token}
            onChange={(event) => setToken(event.target.value)}
          />
        )}
      </Field>
      <HowTo />
      <div className={inDialog ? 'hidden' : 'flex'}>
        <Button type="submit" variant="primary" icon={Rocket} busy={connect.isPending}>
          Connect
        </Button>
      </div>
      <span role="status" className="sr-only">
        {connect.isPending ? 'Asking Coolify' : ''}
      </span>
    </form>
  );
}

function ReplaceDialog({ url, own, onClose }: { url: string; own: boolean; onClose: () => void }) {
  const connect = useConnectCoolify();
  return (
    <Dialog
      open
      sticky
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={own ? 'Replace the connection' : 'Connect your own Coolify'}
      {...(own ? { description: 'The old token is forgotten once Coolify has taken the new one.' } : {})}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={connect.isPending}>
            Connect
          </Button>
        </>
      }
    >
      <ConnectForm connect={connect} initialUrl={url} own={own} inDialog onDone={onClose} />
    </Dialog>
  );
}

function Disconnect({ url, serverConfigured }: { url: string; serverConfigured: boolean }) {
  const [asking, setAsking] = useState(false);
  const disconnect = useDisconnectCoolify();
  return (
    <>
      <Button variant="danger-ghost" icon={Unplug} onClick={() => setAsking(true)}>
        Disconnect
      </Button>
      <ConfirmDialog
        open={asking}
        onOpenChange={setAsking}
        title="Disconnect Coolify?"
        action="Disconnect"
        busy={disconnect.isPending}
        onConfirm={() =>
          disconnect.mutate(undefined, {
            onSuccess: () => {
              setAsking(false);
              toast.ok('Coolify is disconnected');
            },
          })
        }
      >
        <p>
          The token for {url} is deleted here. Deployments that are under way go on there, but cannot be
          watched any more. Take the token back in Coolify too.
        </p>
        {serverConfigured && <p>Your next deployments go to this server’s own Coolify.</p>}
        {disconnect.isError && <ErrorNote error={disconnect.error} />}
      </ConfirmDialog>
    </>
  );
}
